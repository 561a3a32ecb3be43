//! A disk of its own for a node: a file system in a file, small enough to be filled, and one whose power can be cut.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::tool;

const SIZE_BYTES: u64 = 256 << 20;
const FILL: &str = "fill";
pub const TOOLS: [&str; 3] = ["mkfs.ext4", "mount", "umount"];
/// `ioctl(fd, EXT4_IOC_SHUTDOWN, &NOLOGFLUSH)`: from now on nothing reaches the image, not even the journal.
const CUT: &str = "import fcntl, os, struct, sys\n\
    for disk in [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]:\n  \
      fcntl.ioctl(disk, 0x8004587D, struct.pack('I', 2))\n";

/// Mounted while it lives.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    folder: PathBuf,
}

impl Disk {
    /// The folder's path must carry the label of the run (`sweep.rs`).
    ///
    /// # Errors
    /// A tool or the kernel refuses.
    pub fn new(image: PathBuf, folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        File::create(&image).and_then(|file| file.set_len(SIZE_BYTES))?;
        let path = image.to_string_lossy().into_owned();
        tool::run("mkfs.ext4", &["-q", "-F", "-m", "0", &path])?;
        let disk = Self { image, folder };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        tool::run("mount", &["-o".as_ref(), "loop".as_ref(), self.image.as_os_str(), self.folder.as_os_str()])
            .map(drop)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves no byte free; says how many were.
    ///
    /// # Errors
    /// It cannot be filled.
    pub fn fill(&self) -> Result<u64> {
        let file = File::create(self.folder.join(FILL)).context("cannot fill the disk")?;
        let state = statvfs(&self.folder)?;
        let free = state.f_bavail * state.f_frsize;
        // At once; what it does not get in one piece is written.
        let _ = fallocate(&file, FallocateFlags::empty(), 0, free);
        let mut rest = File::options().append(true).open(self.folder.join(FILL))?;
        let block = vec![0; 1 << 12];
        while rest.write_all(&block).is_ok() {}
        Ok(free)
    }

    pub fn free(&self) {
        let _ = std::fs::remove_file(self.folder.join(FILL));
    }

    /// Of all these at once. What is not on an image now never will be. Whoever uses the folders must be killed, then
    /// [`Disk::power_on`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn power_off(folders: &[PathBuf]) -> Result<()> {
        let folders = folders.iter().map(|folder| folder.as_os_str());
        let arguments: Vec<&OsStr> = ["-c".as_ref(), CUT.as_ref()].into_iter().chain(folders).collect();
        tool::run("python3", &arguments).map(drop)
    }

    /// # Errors
    /// Somebody still uses it.
    pub fn power_on(&self) -> Result<()> {
        tool::run("umount", &[&self.folder])?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that was killed may not have let go yet.
        let _ = tool::run("umount", &["--lazy".as_ref(), self.folder.as_os_str()]);
        let _ = std::fs::remove_file(&self.image);
    }
}
