//! A log whose writing has failed: the kernel gives up what it could not write, and calls it clean. It still hands it out as long
//! as it is in memory, so that a node that starts again finds entries that are on no disk; another sync does not write them.
//! So the folder is marked, and whoever opens it writes all of it anew, as it reads it, before anything of it counts.
//!
//! The mark is not synced: with the power, what it warns of goes too.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use crate::durable_file;

const MARK: &str = "unsynced";
/// Of a file that is being written.
const ANEW: &str = "anew";
const CHUNK_BYTES: usize = 1 << 20;

/// The writing of this folder has failed.
pub(crate) fn mark(folder: &Path) {
    if let Err(error) = File::create(folder.join(MARK)) {
        tracing::error!(
            %error, folder = %folder.display(),
            "what could not be written cannot be marked either; restart this node only after its machine"
        );
    }
}

/// Writes a marked folder anew, and takes the mark away.
///
/// # Errors
/// Something cannot be read or written. Nothing is lost, and the mark stays.
pub(crate) fn write_anew(folder: &Path) -> io::Result<()> {
    let mark = folder.join(MARK);
    if !mark.exists() {
        return Ok(());
    }
    tracing::warn!(folder = %folder.display(), "the log could not be written before; it is written anew");
    write_all_anew(folder)?;
    fs::remove_file(mark)?;
    File::open(folder)?.sync_all()
}

fn write_all_anew(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            write_all_anew(&path)?;
        } else if path.extension().is_some_and(|extension| extension == ANEW) {
            // Of a try that was cut off.
            fs::remove_file(path)?;
        } else if path.file_name().is_some_and(|name| name != MARK) {
            write_file_anew(&path)?;
        }
    }
    Ok(())
}

/// Byte by byte: `copy` may have the file system share what is on disk.
fn write_file_anew(path: &Path) -> io::Result<()> {
    let anew = path.with_added_extension(ANEW);
    let (mut from, mut to) = (File::open(path)?, File::create(&anew)?);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk)? {
            0 => break,
            read => to.write_all(chunk.get(..read).unwrap_or_default())?,
        }
    }
    to.set_permissions(from.metadata()?.permissions())?;
    to.sync_all()?;
    durable_file::rename(&anew, path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::PathBuf;

    use super::*;

    /// What is in it, and which file that is.
    fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u64)> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                let number = fs::metadata(&path).unwrap().ino();
                found.insert(path.clone(), (fs::read(&path).unwrap(), number));
            }
        }
        found
    }

    #[test]
    fn a_marked_folder_is_written_anew_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("blobs")).unwrap();
        fs::write(path("db"), vec![7; 3 * CHUNK_BYTES + 5]).unwrap();
        fs::write(path("blobs/1"), "blob").unwrap();
        let before = files(folder.path());
        write_anew(folder.path()).unwrap();
        assert_eq!(files(folder.path()), before, "there is no mark");

        mark(folder.path());
        // Of a try that was cut off.
        fs::write(path("db.anew"), "half").unwrap();
        write_anew(folder.path()).unwrap();
        let after = files(folder.path());
        assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        for (path, (bytes, number)) in &after {
            assert_eq!(bytes, &before[path].0, "{path:?}");
            assert_ne!(number, &before[path].1, "{path:?} is still the old file");
        }
        write_anew(folder.path()).unwrap();
        assert_eq!(files(folder.path()), after);
    }
}
