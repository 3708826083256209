//! Gives back what the start took: reading a config needs several times what serving it does.

use std::{fs, ops::Range, path::Path};

/// Code that the start needed, and that will hardly run again.
pub(crate) fn forget_code() {
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    // Without the file there is nothing to go by; then it stays as it is.
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for range in untouched(&maps, &program) {
        forget(range);
    }
}

/// What is free goes back to the system.
#[expect(
    unsafe_code,
    reason = "the allocator's own call, behind a foreign interface"
)]
pub(crate) fn collect() {
    // SAFETY: it may be called at any time from any thread, and touches only free memory.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// The parts of the program's file that are mapped, cannot be written, and never were: all their pages are the
/// file's own.
fn untouched(maps: &str, program: &Path) -> Vec<Range<usize>> {
    let program = program.to_string_lossy();
    let mut found = Vec::new();
    let mut candidate = None;
    for line in maps.lines() {
        if let Some((range, rest)) = mapping(line) {
            let file = rest.splitn(5, ' ').nth(4).map(str::trim_start);
            let ours = file == Some(&program);
            let fixed = ["r--p", "r-xp"].iter().any(|mode| rest.starts_with(mode));
            candidate = (ours && fixed).then_some(range);
        } else if line.starts_with("Anonymous:") {
            let own = line.split_ascii_whitespace().nth(1) != Some("0");
            found.extend(candidate.take().filter(|_| !own));
        }
    }
    found
}

/// The addresses at the start of a line that begins a mapping, and what is behind them.
fn mapping(line: &str) -> Option<(Range<usize>, &str)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some((number(start)?..number(end)?, rest))
}

/// The kernel keeps the pages in its cache: what runs again is mapped again, a few at a time.
#[expect(unsafe_code, reason = "a call about memory that no reference is to")]
fn forget(range: Range<usize>) {
    use rustix::mm::{Advice, madvise};
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: the mapping is private, of a file, and no page of it was ever written, nor can be: dropped pages are
    // read from the file again.
    let advised = unsafe { madvise(start, range.len(), Advice::LinuxDontNeed) };
    if let Err(error) = advised {
        tracing::debug!("code that is not needed stays in memory: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{forget_code, untouched};

    const MAPS: &str = "\
1000-2000 r--p 00000000 fe:00 7                          /bin/mesh proxy
Anonymous:             0 kB
2000-3000 r-xp 00001000 fe:00 7                          /bin/mesh proxy
Anonymous:             0 kB
3000-4000 r--p 00002000 fe:00 7                          /bin/mesh proxy
Anonymous:             4 kB
4000-5000 rw-p 00003000 fe:00 7                          /bin/mesh proxy
Anonymous:             0 kB
5000-6000 r-xp 00000000 fe:00 8                          /lib/libc.so.6
Anonymous:             0 kB
6000-7000 r-xp 00000000 00:00 0
Anonymous:             0 kB
";

    #[test]
    fn only_what_is_the_programs_and_was_never_written_is_forgotten() {
        let found = untouched(MAPS, Path::new("/bin/mesh proxy"));
        assert_eq!(found, [0x1000..0x2000, 0x2000..0x3000]);
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let program = std::env::current_exe().unwrap();
        assert!(!untouched(&maps, &program).is_empty());
        forget_code();
        assert_eq!(format!("{:?}", Some("still here")), "Some(\"still here\")");
    }
}
