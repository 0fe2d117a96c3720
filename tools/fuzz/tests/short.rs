//! Every target for a moment, with other inputs each day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[test]
fn random_inputs() {
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86400;
    std::thread::scope(|scope| {
        for (name, play) in fuzz::TARGETS {
            scope.spawn(move || {
                // What fails says which input it was: the seed and its number.
                let played = fuzz::random(*play, today << 32, Duration::from_secs(3));
                println!("{name}: {played} inputs of seed {today}");
                assert!(played > 0, "{name} plays nothing");
            });
        }
    });
}

#[test]
fn nothing_and_ends_of_stories() {
    for (_, play) in fuzz::TARGETS {
        play(&[]);
        for byte in 0..=255 {
            play(&[byte]);
            play(&[byte, byte, byte]);
        }
    }
}
