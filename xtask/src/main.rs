//! The jobs that people and CI run.

mod fds;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fds"] => fds::run(false),
        ["fds", "--check"] => fds::run(true),
        _ => anyhow::bail!("usage: cargo xtask fds [--check]"),
    }
}
