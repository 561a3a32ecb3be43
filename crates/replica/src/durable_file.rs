//! Small files that are either old or new, never half: written beside, synced, renamed, checked by a CRC when read.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::damaged;
use crate::types::{decode, encode};

/// `None`: there is no such file.
///
/// # Errors
/// `InvalidData` that names the file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let wrong = || damaged(format!("file {:?} cannot be read", path.file_name().unwrap_or_default()));
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or_else(wrong)?;
    if crc32fast::hash(body).to_be_bytes() != *crc {
        return Err(wrong());
    }
    decode(body).map(Some).map_err(|_| wrong())
}

/// On disk when it returns, name and all.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut bytes = encode(value)?;
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    rename(&partial, path)
}

/// A rename that has happened when it returns, whatever becomes of the machine.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let here = |folder: &Path| folder.as_os_str().is_empty();
    let folder = to.parent().map(|folder| if here(folder) { Path::new(".") } else { folder });
    folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
