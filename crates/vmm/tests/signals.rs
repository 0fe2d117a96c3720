//! Signals, each scenario in a process of its own: this program starts itself once a scenario and sends that
//! process what a user or a service manager would. Without the test harness, because the harness's own thread
//! would take a signal that is meant for the VM.

#[allow(dead_code, reason = "each test program uses its part")]
mod support;

use arch_api::Stop;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use support::{Counter, Guest, Log, Program, Step, console, within};
use vmm::{Options, Vm};

const SCENARIO: &str = "CEDE_VMM_SIGNAL_SCENARIO";

/// Name, the guest's side, the user's side.
type Scenario = (&'static str, fn(), fn(&mut User));

const SCENARIOS: &[Scenario] = &[
    ("one signal is the power button", obeys, |user| {
        user.expect("ready");
        user.send(Signal::SIGTERM);
        user.expect("Ok(PoweredOff), the button was pressed 1 times");
    }),
    ("a second signal stops a guest that does not listen", ignores, |user| {
        user.expect("ready");
        user.send(Signal::SIGINT);
        user.expect("button");
        user.send(Signal::SIGHUP);
        user.expect("Ok(Terminated), the button was pressed 1 times");
    }),
    ("a signal before the guest boots is not lost", early, |user| {
        user.expect("Ok(PoweredOff), the button was pressed 1 times");
    }),
    ("a reboot does not forget the first signal", reboots, |user| {
        user.expect("ready");
        user.send(Signal::SIGTERM);
        user.expect("ready again");
        user.send(Signal::SIGTERM);
        user.expect("Ok(Terminated), the button was pressed 1 times");
    }),
    ("a hangup that is spoken for stops nothing", hangs_up, |user| {
        user.expect("ready");
        user.send(Signal::SIGHUP);
        user.expect("hung up once");
        user.send(Signal::SIGHUP);
        user.expect("hung up twice");
        user.send(Signal::SIGTERM);
        user.expect("Ok(PoweredOff), the button was pressed 1 times");
    }),
    ("no thread is left", many, |user| user.expect("1 thread after 30 VMs")),
];

fn main() {
    if let Ok(name) = std::env::var(SCENARIO) {
        let (_, guest, _) = SCENARIOS.iter().find(|(n, ..)| *n == name).expect("a scenario of this name");
        return guest();
    }
    for (name, _, user) in SCENARIOS {
        println!("signals: {name}");
        let mut child = User::start(name);
        let pid = child.pid;
        let ended = std::panic::catch_unwind(move || {
            within(60, name, move || {
                user(&mut child);
                child.end();
            });
        });
        if let Err(panic) = ended {
            // It may have ended by itself.
            let _ = kill(pid, Signal::SIGKILL);
            std::panic::resume_unwind(panic);
        }
    }
}

/// Who looks at the VM from outside.
struct User {
    child: Child,
    pid: Pid,
    lines: Lines<BufReader<ChildStdout>>,
}

impl User {
    fn start(name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.env(SCENARIO, name).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { pid: Pid::from_raw(child.id().try_into().unwrap()), child, lines }
    }

    fn expect(&mut self, line: &str) {
        let got = self.lines.next().map(Result::unwrap);
        assert_eq!(got.as_deref(), Some(line), "what the VM's process says next");
    }

    fn send(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    fn end(mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

/// Runs the programs of two vCPUs, of which the second only sleeps.
fn run(log: &Arc<Log>, programs: Vec<Program>, before: fn()) {
    run_with(log, programs, before, Options { reboot: true, ..Options::default() });
}

fn run_with(log: &Arc<Log>, programs: Vec<Program>, before: fn(), options: Options) {
    let asleep = vec![Step::Start(1, vec![Step::Idle])];
    let programs: Vec<_> = programs.into_iter().map(|program| [asleep.clone(), program].concat()).collect();
    let vm = Vm::new(Guest::new(log, programs), console(), options).unwrap();
    before();
    let result = vm.run();
    println!("{result:?}, the button was pressed {} times", log.buttons.load(SeqCst));
    drop(vm);
    log.assert_quiet();
}

fn pressed(log: &Log) -> Step {
    Step::Until(Counter::clone(&log.buttons), 1)
}

fn obeys() {
    let log = Log::new(2);
    run(&log, vec![vec![Step::Say("ready"), pressed(&log), Step::Stop(Stop::PowerOff)]], || {});
}

fn ignores() {
    let log = Log::new(2);
    run(&log, vec![vec![Step::Say("ready"), pressed(&log), Step::Say("button"), Step::Idle]], || {});
}

fn early() {
    let log = Log::new(2);
    let program = vec![pressed(&log), Step::Stop(Stop::PowerOff)];
    run(&log, vec![program], || kill(Pid::this(), Signal::SIGTERM).unwrap());
}

fn reboots() {
    let log = Log::new(2);
    let first = vec![Step::Say("ready"), pressed(&log), Step::Stop(Stop::Reboot)];
    run(&log, vec![first, vec![Step::Say("ready again"), Step::Idle]], || {});
}

fn hangs_up() {
    let (log, hangups) = (Log::new(2), Counter::default());
    let program = vec![
        Step::Say("ready"),
        Step::Until(Arc::clone(&hangups), 1),
        Step::Say("hung up once"),
        Step::Until(Arc::clone(&hangups), 2),
        Step::Say("hung up twice"),
        pressed(&log),
        Step::Stop(Stop::PowerOff),
    ];
    let on_hangup: Box<dyn Fn() + Send> = Box::new(move || _ = hangups.fetch_add(1, SeqCst));
    let options = Options { on_hangup: Some(on_hangup), ..Options::default() };
    run_with(&log, vec![program], || {}, options);
}

fn many() {
    for _ in 0..30 {
        let log = Log::new(4);
        let first = vec![Step::Start(1, vec![Step::Idle]), Step::Start(2, vec![Step::Park])];
        let programs =
            [Stop::Reboot, Stop::PowerOff].map(|stop| [first.clone(), vec![Step::Stop(stop)]].concat());
        let vm =
            Vm::new(Guest::new(&log, programs), console(), Options { reboot: true, ..Options::default() })
                .unwrap();
        vm.run().unwrap();
    }
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    println!("{threads} thread after 30 VMs");
}
