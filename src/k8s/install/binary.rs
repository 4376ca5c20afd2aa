//! The relay's program for one architecture: checked, compressed, cut into parts.

use std::borrow::Cow;
use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

/// Largest program that is taken: twice what the relay may be.
const MAX_PROGRAM: u64 = 16 << 20;
/// Bytes of one part. A ConfigMap may hold 1 MiB, and the request that carries it is a third
/// longer: with this it stays below 1 MiB as a whole, which proxies before API servers take.
const PART: usize = 700 << 10;
/// What a program for Linux begins with, as 64-bit little-endian ELF.
const ELF: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
/// The program header that names a dynamic linker.
const PT_INTERP: u32 = 3;
/// What `kdev-relay --version` prints before the number.
const PRINTS: &[u8] = b"kdev-relay ";

/// A processor architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arch {
    /// As Kubernetes and image registries call it.
    pub name: &'static str,
    /// As `uname -m` calls it.
    pub machine: &'static str,
    /// As ELF numbers it.
    elf: u16,
}

/// Those that a relay can be built for.
pub const ARCHES: [Arch; 5] = [
    arch("amd64", "x86_64", 62),
    arch("arm64", "aarch64", 183),
    arch("ppc64le", "ppc64le", 21),
    arch("riscv64", "riscv64", 243),
    arch("loong64", "loongarch64", 258),
];

const fn arch(name: &'static str, machine: &'static str, elf: u16) -> Arch {
    Arch { name, machine, elf }
}

/// The relay's program for one architecture.
#[derive(Clone, PartialEq, Eq)]
pub struct Binary {
    /// What it runs on.
    pub arch: Arch,
    /// The version that it says it is.
    pub version: String,
    /// SHA-256 of the program, in hexadecimal.
    pub sha256: String,
    packed: Vec<u8>,
}

impl std::fmt::Debug for Binary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Binary({} {})", self.arch.name, self.version)
    }
}

/// The relay's program for one architecture, as it is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    /// What it runs on.
    pub arch: Arch,
    /// The version that it says it is.
    pub version: String,
    /// All of it.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Program<'a> {
    /// Takes a program, compressed by gzip or not.
    ///
    /// # Errors
    /// As [`Binary::read`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let bytes = match bytes.starts_with(&[0x1f, 0x8b]) {
            true => Cow::Owned(unpack(bytes)?),
            false => Cow::Borrowed(bytes),
        };
        if bytes.len() as u64 > MAX_PROGRAM {
            return Err(format!("is larger than {} MiB", MAX_PROGRAM >> 20));
        }
        Ok(Self {
            arch: machine(&bytes)?,
            version: version(&bytes).ok_or("is a program, but no kdev-relay")?,
            bytes,
        })
    }
}

impl Binary {
    /// Takes a program, compressed by gzip or not.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence about the file.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let program = Program::read(bytes)?;
        let (arch, version, program) = (program.arch, program.version, &*program.bytes);
        // Not what was given but packed here, so that the same program has the same name always.
        let packed = pack(program).map_err(|e| format!("cannot be compressed: {e}"))?;
        Ok(Self {
            arch,
            version,
            sha256: hex(&Sha256::digest(program)),
            packed,
        })
    }

    /// The compressed program in pieces that fit a ConfigMap each.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.packed.chunks(PART)
    }

    /// The name of the ConfigMap with part `number`: other content has another name.
    #[must_use]
    pub fn part_name(&self, number: usize) -> String {
        let hash = hex(&Sha256::digest(&self.packed));
        format!(
            "{}-{}-{}-{number}",
            super::NAME,
            self.arch.name,
            &hash[..10]
        )
    }

    /// The path of part `number` below the folder of all parts; a shell sorts them by name.
    #[must_use]
    pub fn part_path(&self, number: usize) -> String {
        format!("{}/{number:02}", self.arch.name)
    }
}

fn pack(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(program)?;
    encoder.finish()
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut program = Vec::new();
    GzDecoder::new(bytes)
        .take(MAX_PROGRAM + 1)
        .read_to_end(&mut program)
        .map_err(|e| format!("cannot be decompressed: {e}"))?;
    Ok(program)
}

/// What the program runs on, once it is sure that it runs there without anything else.
fn machine(program: &[u8]) -> Result<Arch, String> {
    let no_program = || "is no program for 64-bit Linux (ELF)".to_owned();
    if !program.starts_with(&ELF) {
        return Err(no_program());
    }
    let u16_at = |at: usize| -> Option<u16> {
        let bytes = program.get(at..at.checked_add(2)?)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    };
    // Elf64_Ehdr: e_machine at 18, e_phoff at 32, e_phentsize at 54, e_phnum at 56.
    let number = u16_at(18).ok_or_else(no_program)?;
    let table = program.get(32..40).ok_or_else(no_program)?;
    let table = u64::from_le_bytes(table.try_into().unwrap_or_default());
    let table = usize::try_from(table).map_err(|_| no_program())?;
    let (size, count) = (
        u16_at(54).ok_or_else(no_program)?,
        u16_at(56).ok_or_else(no_program)?,
    );
    for header in 0..usize::from(count) {
        let at = table.checked_add(header * usize::from(size));
        let kind = at.and_then(|at| program.get(at..at.checked_add(4)?));
        let kind = kind.ok_or_else(no_program)?;
        if u32::from_le_bytes(kind.try_into().unwrap_or_default()) == PT_INTERP {
            return Err(
                "needs a dynamic linker and libraries, which a base image may not have: it was \
                 built without RUSTFLAGS='-C target-feature=+crt-static'"
                    .to_owned(),
            );
        }
    }
    let arch = ARCHES.into_iter().find(|arch| arch.elf == number);
    arch.ok_or_else(|| {
        let names = ARCHES.map(|arch| arch.name).join(", ");
        format!("is for a machine that ELF numbers {number}; a relay is for {names}")
    })
}

/// What the program's `--version` prints, found without running it: it may be for another machine.
fn version(program: &[u8]) -> Option<String> {
    let mut rest = program;
    while let Some(at) = find(rest, PRINTS) {
        rest = &rest[at + PRINTS.len()..];
        let end = rest.iter().take(64).position(|byte| *byte == b'\n')?;
        let text = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        if text.starts_with(|c: char| c.is_ascii_digit())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-+".contains(&b))
        {
            return Some(text.to_owned());
        }
    }
    None
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let first = *wanted.first()?;
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == first) {
        if text[from + at..].starts_with(wanted) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What passes for a relay on `arch`.
#[cfg(test)]
pub(crate) fn sample(arch: &str, linked: bool) -> Vec<u8> {
    let arch = ARCHES.iter().find(|known| known.name == arch);
    tests::program(arch.map_or(0, |arch| arch.elf), linked, tests::PRINTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest file that passes for a relay.
    pub(super) fn program(machine: u16, linked: bool, tail: &[u8]) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(&ELF);
        elf[18..20].copy_from_slice(&machine.to_le_bytes());
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = if linked { 3 } else { 1 };
        elf.extend_from_slice(tail);
        elf
    }

    pub(super) const PRINTED: &[u8] = b"subscriberkdev-relay 1.2.3\nusage: kdev-relay [worker";

    #[test]
    fn a_relay_is_recognized_packed_or_not() {
        let plain = program(183, false, PRINTED);
        let binary = Binary::read(&plain).unwrap();
        assert_eq!((binary.arch.name, &*binary.version), ("arm64", "1.2.3"));
        let packed = Binary::read(&pack(&plain).unwrap()).unwrap();
        assert_eq!(packed, binary);
        assert_eq!(binary.sha256.len(), 64);
        let name = binary.part_name(0);
        assert!(
            name.starts_with("kdev-relay-arm64-") && name.ends_with("-0"),
            "{name}"
        );
        let other = Binary::read(&program(183, false, b"kdev-relay 1.2.4\n")).unwrap();
        assert_ne!(other.part_name(0), name);
    }

    #[test]
    fn parts_joined_are_the_program() {
        let mut noise = PRINTED.to_vec();
        let mut state = 1_u64;
        noise.extend((0..2 * PART).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        }));
        let plain = program(62, false, &noise);
        let binary = Binary::read(&plain).unwrap();
        let parts: Vec<&[u8]> = binary.parts().collect();
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().all(|part| part.len() <= PART));
        assert_eq!(unpack(&parts.concat()).unwrap(), plain);
    }

    #[test]
    fn what_would_not_run_is_refused_with_the_reason() {
        let refused = |bytes: &[u8]| Binary::read(bytes).unwrap_err();
        assert!(refused(b"#!/bin/sh\n").contains("no program"));
        assert!(refused(&ELF).contains("no program"));
        assert!(refused(&program(62, true, PRINTED)).contains("crt-static"));
        assert!(refused(&program(62, false, b"hello")).contains("no kdev-relay"));
        assert!(refused(&program(40, false, PRINTED)).contains("amd64, arm64"));
        assert!(refused(&[0x1f, 0x8b, 0, 0]).contains("decompressed"));
        let mut cut = program(62, false, PRINTED);
        cut[56] = 200;
        assert!(refused(&cut).contains("no program"));
    }
}
