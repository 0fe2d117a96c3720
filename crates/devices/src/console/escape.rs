//! The escape keys of an interactive console, as a pure state machine.
//!
//! ```text
//!            Ctrl-A                      x  -> Quit
//!  Plain ──────────────> Prefixed ─────  h  -> Help          ──> Plain
//!    │ any other byte                    a, Ctrl-A -> Pass(Ctrl-A)
//!    └─> Pass(byte)                      any other -> Swallow
//! ```
//!
//! An unknown key after the prefix is swallowed with it, so that a slip never reaches the guest.

/// Ctrl-A.
const PREFIX: u8 = 0x01;

/// What one byte of input amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// This byte is the guest's.
    Pass(u8),
    /// Part of an escape; nothing to do.
    Swallow,
    /// Print the escape keys.
    Help,
    /// Stop the virtual machine.
    Quit,
}

/// Whether the prefix was the last byte seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Escape {
    prefixed: bool,
}

impl Escape {
    /// Takes the next byte of input.
    pub(super) fn feed(&mut self, byte: u8) -> Key {
        if !std::mem::take(&mut self.prefixed) {
            if byte == PREFIX {
                self.prefixed = true;
                return Key::Swallow;
            }
            return Key::Pass(byte);
        }
        match byte {
            b'x' => Key::Quit,
            b'h' => Key::Help,
            b'a' | PREFIX => Key::Pass(PREFIX),
            _ => Key::Swallow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The keys of a whole input, by looking ahead instead of keeping state.
    fn whole(mut input: &[u8]) -> Vec<Key> {
        let mut keys = Vec::new();
        loop {
            input = match input {
                [] | [PREFIX] => return keys,
                [PREFIX, b'x', rest @ ..] => {
                    keys.push(Key::Quit);
                    rest
                }
                [PREFIX, b'h', rest @ ..] => {
                    keys.push(Key::Help);
                    rest
                }
                [PREFIX, b'a' | PREFIX, rest @ ..] => {
                    keys.push(Key::Pass(PREFIX));
                    rest
                }
                [PREFIX, _, rest @ ..] => rest,
                [byte, rest @ ..] => {
                    keys.push(Key::Pass(*byte));
                    rest
                }
            };
        }
    }

    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![3 => Just(PREFIX), 1 => Just(b'x'), 1 => Just(b'h'), 1 => Just(b'a'), 4 => any::<u8>()]
    }

    proptest! {
        #[test]
        fn the_state_between_bytes_is_all_there_is(
            input in prop::collection::vec(byte(), 0..200),
        ) {
            let mut escape = Escape::default();
            let keys: Vec<Key> =
                input.iter().map(|&b| escape.feed(b)).filter(|k| *k != Key::Swallow).collect();
            prop_assert_eq!(keys, whole(&input));
        }
    }
}
