//! The trace events as a subscriber sees them. Alone in its process: interest in an event is
//! process-wide.

#![cfg(all(target_os = "linux", not(loom)))]

use std::sync::{Arc, Mutex};
use vcore::futex::monotonic_ns;
use vcore::timer::VcpuTimer;
use vcore::{FutexPort, NoKick, SharedTunables, Thread, Tunables, Vcore};

/// A subscriber's output, kept.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn events_have_the_kernels_names_and_fields() {
    let kept = Kept::default();
    let writer = kept.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let port = FutexPort::new(16, 1, Arc::new(SharedTunables::new(Tunables::NO_POLL)), NoKick);
        let vcore = Vcore::<_>::new(1, port);
        // Far enough for a thread that is preempted here to find that it still has to wait.
        let soon = Some(monotonic_ns() + 200_000_000);
        let _ = vcore.cede(Thread::new(0).unwrap(), soon).unwrap();
        let mut timer = VcpuTimer::new(16);
        timer.set(soon);
        let _ = timer.enter();
        let _ = timer.nap();
    });
    let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    let tgid = std::process::id();
    for expected in [
        format!("kvm_hv: n_runnable=1 runner_vcpu=16 where=0 tgid={tgid}"),
        format!("kvm_hv: n_runnable=1 runner_vcpu=16 where=1 tgid={tgid}"),
        format!("waited=1 tgid={tgid}"),
        "kvm: vcpu_id=16 hv_timer_in_use=1".to_owned(),
        "kvm: vcpu_id=16 hv_timer_in_use=0".to_owned(),
    ] {
        assert!(text.contains(&expected), "no {expected:?} in {text}");
    }
}
