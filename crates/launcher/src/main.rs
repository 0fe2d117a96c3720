//! A KVM virtual machine monitor for POWER.
mod power;
fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(tracing_subscriber::EnvFilter::from_env("CEDE_LOG")).init();
    let a: Vec<String> = std::env::args().collect();
    let get = |n: &str| a.iter().position(|x| x == n).map(|i| a[i + 1].clone());
    let num = |n: &str, d: u64| get(n).map_or(d, |s| s.parse().unwrap());
    let wish = ppc64::Wish { name: "x".into(), cpus: num("--cpus", 1) as u32, threads: num("--threads", 1) as u32, memory: num("--memory", 512) << 20,
      cpu: None, mmu: get("--mmu").map(|m| if m=="hash" {ppc64::MmuKind::Hash} else {ppc64::MmuKind::Radix}), irqchip: get("--irqchip").map(|m| if m=="xics" {arch_api::ppc64::Irqchip::Xics} else {arch_api::ppc64::Irqchip::Xive}), cmdline: get("--cmdline").unwrap_or_default() };
    let host = power::PowerHost::open().unwrap_or_else(|e| panic!("{e}"));
    eprintln!("{:x?}", host.host);
    let k = get("--kernel").unwrap(); let i = get("--initrd");
    let r = host.run(wish, (k.as_ref(), i.as_ref().map(|s| s.as_ref())), || Ok(devices::console::Console::stdio().unwrap()), vmm::Options { reboot: true });
    eprintln!("{r:?}");
}
