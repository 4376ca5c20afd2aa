//! An archive of one program, as engines take it for a copy into a container (POSIX.1-1988, ustar).

/// Bytes of a record.
const RECORD: usize = 512;

/// An archive with one file of that name, which everybody may run.
pub(in crate::run::container) fn of(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; RECORD];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", bytes.len()));
    put(136, "00000000000\0");
    // The sum is made as if its own field were blank.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = [&header, bytes].concat();
    archive.resize(archive.len().next_multiple_of(RECORD) + 2 * RECORD, 0);
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("archive");
        let content = vec![b'x'; 1000];
        std::fs::write(&file, of("program", &content)).unwrap();
        let mut tar = std::process::Command::new("tar");
        tar.arg("-xf").arg(&file).arg("-C").arg(folder.path());
        assert!(tar.status().unwrap().success());
        let program = folder.path().join("program");
        assert_eq!(std::fs::read(&program).unwrap(), content);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = program.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
        }
    }
}
