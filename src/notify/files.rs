//! Files that the ways to a person need, read anew for each delivery, so that a changed password is taken
//! without a word.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::folder::read_file;

/// Largest file with roots, bytes.
const MAX_ROOTS: u64 = 1 << 20;
/// Longest password, bytes.
const MAX_PASSWORD: u64 = 4096;

/// The certificates of a PEM file.
///
/// # Errors
/// A sentence.
pub(super) fn roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |reason: &str| format!("the roots in {} cannot be used: {reason}", path.display());
    let bytes = read_file(path, MAX_ROOTS).map_err(|e| failed(&e.to_string()))?;
    let roots = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| failed(&e.to_string()))?;
    if roots.is_empty() { Err(failed("there is no PEM certificate in it")) } else { Ok(roots) }
}

/// The password that is a file's whole content but for the end of its line.
///
/// # Errors
/// A sentence, without anything of what was read.
pub(super) fn password(path: &Path) -> Result<Zeroizing<String>, String> {
    let failed = |reason: &str| format!("the password in {} cannot be used: {reason}", path.display());
    let bytes = Zeroizing::new(read_file(path, MAX_PASSWORD).map_err(|e| failed(&e.to_string()))?);
    let text = std::str::from_utf8(&bytes).map_err(|_| failed("it is not UTF-8 text"))?;
    let password = text.strip_suffix('\n').unwrap_or(text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    match password {
        "" => Err(failed("the file is empty")),
        _ if password.contains(['\n', '\r', '\0']) => Err(failed("the file has more than one line")),
        _ => Ok(Zeroizing::new(password.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        for (content, taken) in [
            ("hush", Some("hush")),
            ("hush\n", Some("hush")),
            ("hush\r\n", Some("hush")),
            (" hush ", Some(" hush ")),
            ("", None),
            ("\n", None),
            ("hush\nhush\n", None),
            (&"x".repeat(5000), None),
        ] {
            std::fs::write(&path, content).unwrap();
            let password = password(&path);
            assert_eq!(password.as_ref().ok().map(|p| p.as_str()), taken, "{content:?}");
            assert!(password.err().is_none_or(|e| !e.contains("hush")));
        }
        std::fs::write(&path, [0xff]).unwrap();
        assert!(password(&path).is_err());
        assert!(roots(&path).is_err());
        assert!(password(&dir.path().join("none")).is_err());
    }
}
