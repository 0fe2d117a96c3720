//! A network card's address.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address that a card may have: not of a group, not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac([u8; 6]);

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// Not six bytes.
    #[error("\"{0}\" is no MAC address; one looks like 52:54:00:12:34:56")]
    Form(String),
    /// The lowest bit of its first byte is set.
    #[error("{0} is the address of a group, which no card can have; its first byte has to be even")]
    Group(String),
    /// Nobody's.
    #[error("00:00:00:00:00:00 is nobody's address; leave the key out for one of the VM's own")]
    Zero,
}

impl Mac {
    /// The address of card `index` of the VM named `name`: the same whenever it is asked for, and locally administered.
    /// VMs of one name in one network need addresses that somebody chooses.
    #[must_use]
    pub fn derived(name: &str, index: usize) -> Self {
        // FNV-1a, then the end of splitmix64, which brings the last bytes into all bits.
        let bytes = name.bytes().chain([0]).chain((index as u64).to_le_bytes());
        let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        let [first, rest @ ..] = hash.to_le_bytes();
        Self([first & !0b11 | 0b10, rest[0], rest[1], rest[2], rest[3], rest[4]])
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let form = || MacError::Form(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| matches!(part.len(), 1 | 2)).ok_or_else(form)?;
            // A sign is no digit, whatever from_str_radix says.
            if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(form());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| form())?;
        }
        if parts.next().is_some() {
            return Err(form());
        }
        if bytes[0] & 1 != 0 {
            return Err(MacError::Group(text.to_owned()));
        }
        if bytes == [0; 6] {
            return Err(MacError::Zero);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn addresses_are_read_and_printed() {
        let mac: Mac = "52:54:0:AB:cd:01".parse().unwrap();
        assert_eq!(mac.bytes(), [0x52, 0x54, 0, 0xab, 0xcd, 1]);
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
    }

    #[test]
    fn what_no_card_can_have_is_refused() {
        let long = "52:54:00:12:34:56:78";
        for text in
            ["", "52", "52:54:00:12:34", long, "52-54-00-12-34-56", "52:54:00:12:34:+6", "g2:54:00:12:34:56"]
        {
            assert_eq!(text.parse::<Mac>(), Err(MacError::Form(text.to_owned())));
        }
        assert_eq!("53:54:00:12:34:56".parse::<Mac>(), Err(MacError::Group("53:54:00:12:34:56".to_owned())));
        assert_eq!("ff:ff:ff:ff:ff:ff".parse::<Mac>(), Err(MacError::Group("ff:ff:ff:ff:ff:ff".to_owned())));
        assert_eq!("0:0:0:0:0:0".parse::<Mac>(), Err(MacError::Zero));
    }

    #[test]
    fn derived_addresses_are_stable_local_and_differ() {
        assert_eq!(Mac::derived("vm", 0), Mac::derived("vm", 0));
        let names = (0..100).map(|n| format!("vm{n}"));
        let all: HashSet<Mac> =
            names.flat_map(|name| (0..4).map(move |index| Mac::derived(&name, index))).collect();
        assert_eq!(all.len(), 400);
        assert!(all.iter().all(|mac| mac.bytes()[0] & 0b11 == 0b10));
    }
}
