//! Project tasks: the lab, the demo, tests and benches.
fn main() -> anyhow::Result<()> {
    let t = std::time::Instant::now();
    println!("{:?}", xtask::lab::fetch::image()?);
    eprintln!("{:?}", t.elapsed());
    Ok(())
}
