//! Images as files: what is taken, and what is refused and why.

use super::*;
use std::io::Write;
use tempfile::NamedTempFile;

/// A bzImage with two sectors of set-up code, `body` behind, and what it says of itself.
pub(crate) fn bz_image(body: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 3 * SECTOR];
    file[SETUP_SECTORS] = 2;
    file[BOOT_FLAG..BOOT_FLAG + 2].copy_from_slice(&0xaa55_u16.to_le_bytes());
    file[JUMP] = 0x66;
    file[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
    file[VERSION..VERSION + 2].copy_from_slice(&0x20f_u16.to_le_bytes());
    file[LOAD_FLAGS] = LOADED_HIGH;
    file[INITRD_MAX..INITRD_MAX + 4].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    file[PREFERRED..PREFERRED + 8].copy_from_slice(&(16_u64 << 20).to_le_bytes());
    file[INIT_SIZE..INIT_SIZE + 4].copy_from_slice(&(8_u32 << 20).to_le_bytes());
    file.extend(body);
    file
}

/// An ELF file with one segment of `body` at 1 MiB and, with `note`, a PVH entry there.
pub(crate) fn vmlinux(machine: u16, body: &[u8], note: bool) -> Vec<u8> {
    const HEADERS: u64 = 64;
    let note: Vec<u8> = match note {
        true => [4_u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), KERNEL as u32].map(u32::to_le_bytes).concat(),
        false => Vec::new(),
    };
    let body_at = HEADERS + 2 * 56;
    let note_at = (body_at + body.len() as u64).next_multiple_of(4);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    [2, machine].iter().for_each(|half: &u16| file.extend(half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    [KERNEL, HEADERS, 0].iter().for_each(|long: &u64| file.extend(long.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    [64, 56, 2, 64, 0, 0].iter().for_each(|half: &u16| file.extend(half.to_le_bytes()));
    let mut segment = |kind: u32, at: u64, size: u64, address: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(7_u32.to_le_bytes());
        [at, address, address, size, size, 4].iter().for_each(|long| file.extend(long.to_le_bytes()));
    };
    segment(PT_LOAD, body_at, body.len() as u64, KERNEL);
    segment(PT_NOTE, note_at, note.len() as u64, 0);
    file.extend(body);
    file.resize(note_at as usize, 0);
    file.extend(note);
    file
}

pub(crate) fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn refusal(bytes: &[u8]) -> String {
    Image::open(file(bytes).path()).unwrap_err().to_string()
}

#[test]
fn a_bz_image_says_what_it_needs() {
    let file = file(&bz_image(b"code"));
    let image = Image::open(file.path()).unwrap();
    assert_eq!((image.entry, image.end, image.initrd_max), (KERNEL, 24 << 20, 0x7fff_ffff));
    let Protocol::Linux(header) = &image.protocol else { panic!("{:?}", image.protocol) };
    assert_eq!(header.len(), MAGIC + 0x66 - HEADER.start);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 32 << 20)]).unwrap();
    image.load(&memory).unwrap();
    let mut code = [0; 4];
    vm_memory::Bytes::read_slice(&memory, &mut code, GuestAddress(KERNEL)).unwrap();
    assert_eq!(&code, b"code");
}

#[test]
fn a_vmlinux_is_entered_where_its_note_says() {
    let file = file(&vmlinux(EM_X86_64, b"code!", true));
    let image = Image::open(file.path()).unwrap();
    assert_eq!((image.entry, image.end, &image.protocol), (KERNEL, KERNEL + 5, &Protocol::Pvh));
}

#[test]
fn what_cannot_be_booted_is_refused_with_a_reason() {
    assert!(refusal(b"").contains("is no Linux image"));
    assert!(refusal(&[0; 4096]).contains("is no Linux image"));
    assert!(refusal(&bz_image(b"")).contains("is cut short"));
    let mut old = bz_image(b"code");
    old[VERSION] = 9;
    assert!(refusal(&old).contains("before 2.6.31"));
    assert!(refusal(&vmlinux(EM_X86_64, b"code", false)).contains("has no PVH entry"));
    assert!(refusal(&vmlinux(21, b"code", true)).contains("is for another machine"));
    assert!(refusal(b"\x7fELF").contains("has a broken ELF header"));
    let whole = vmlinux(EM_X86_64, b"code", true);
    for length in 0..whole.len() {
        assert!(Image::open(file(&whole[..length]).path()).is_err(), "{length} bytes of it");
    }
    assert!(Image::open(Path::new("/dev/null")).unwrap_err().to_string().contains("cannot read kernel"));
}
