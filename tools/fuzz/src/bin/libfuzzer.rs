//! The target that `CEDE_FUZZ_TARGET` names, with libFuzzer's own arguments. Without a name it prints them.

#![no_main]

use std::sync::OnceLock;

static PLAY: OnceLock<fuzz::Play> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("CEDE_FUZZ_TARGET").unwrap_or_default();
        let Some(play) = fuzz::target(&name) else {
            fuzz::TARGETS.iter().for_each(|(name, _)| println!("{name}"));
            std::process::exit(2);
        };
        PLAY.get_or_init(|| play);
    },
    |data: &[u8]| {
        if let Some(play) = PLAY.get() {
            play(data);
        }
    }
);
