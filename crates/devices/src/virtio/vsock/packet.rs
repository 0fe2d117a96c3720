//! A packet's header (VIRTIO 1.2, 5.10.6), read once and written once.
//!
//! It is not rust-vmm's: that wants a packet's data in one piece of host memory, which a bus translation or a
//! driver that sends pages of a user's does not give.

/// Bytes of `struct virtio_vsock_hdr`.
pub(super) const HEADER: usize = 44;

/// The most data that one packet has.
pub(super) const LARGEST: usize = 64 << 10;

/// The host's address.
pub(super) const HOST: u64 = 2;

/// Streams are the only kind of socket here.
pub(super) const STREAM: u16 = 1;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Op {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

/// Flags of [`Op::Shutdown`]: the sender receives no more, the sender sends no more.
pub(super) const NO_RECEIVE: u32 = 1;
pub(super) const NO_SEND: u32 = 2;

/// `struct virtio_vsock_hdr`, as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub source_cid: u64,
    pub destination_cid: u64,
    pub source_port: u32,
    pub destination_port: u32,
    pub length: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buffer: u32,
    pub forwarded: u32,
}

impl Header {
    pub(super) fn from_bytes(bytes: &[u8; HEADER]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| u32::from(word(at)) | u32::from(word(at + 2)) << 16;
        let wide = |at: usize| u64::from(long(at)) | u64::from(long(at + 4)) << 32;
        Self {
            source_cid: wide(0),
            destination_cid: wide(8),
            source_port: long(16),
            destination_port: long(20),
            length: long(24),
            kind: word(28),
            op: word(30),
            flags: long(32),
            buffer: long(36),
            forwarded: long(40),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.source_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.destination_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.source_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.destination_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buffer.to_le_bytes());
        bytes[40..].copy_from_slice(&self.forwarded.to_le_bytes());
        bytes
    }

    /// What it is for, if that is known.
    pub(super) fn op(&self) -> Option<Op> {
        let all = [
            Op::Request,
            Op::Response,
            Op::Reset,
            Op::Shutdown,
            Op::Data,
            Op::CreditUpdate,
            Op::CreditRequest,
        ];
        all.into_iter().find(|op| *op as u16 == self.op)
    }

    /// The answer to it that ends the connection, or says that there is none.
    pub(super) fn refusal(&self) -> Self {
        Self {
            source_cid: self.destination_cid,
            destination_cid: self.source_cid,
            source_port: self.destination_port,
            destination_port: self.source_port,
            kind: self.kind,
            op: Op::Reset as u16,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_are_what_their_bytes_are(bytes in proptest::array::uniform32(any::<u8>()), end in proptest::array::uniform12(any::<u8>())) {
            let bytes: [u8; HEADER] = [&bytes[..], &end].concat().try_into().unwrap();
            prop_assert_eq!(Header::from_bytes(&bytes).to_bytes(), bytes);
        }
    }

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let header =
            Header { source_cid: 3, destination_cid: HOST, op: 5, length: 0x1234, ..Header::default() };
        let bytes = header.to_bytes();
        assert_eq!((bytes[0], bytes[8], bytes[30]), (3, 2, 5));
        assert_eq!(bytes[24..28], [0x34, 0x12, 0, 0]);
        assert_eq!(header.op(), Some(Op::Data));
        assert_eq!(header.refusal().op(), Some(Op::Reset));
    }
}
