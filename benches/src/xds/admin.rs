//! What a proxy says about itself.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use anyhow::{Context as _, Result};

/// The longest time, in milliseconds, that the first worker has gone on without looking for events; its
/// address is what is in the file.
pub(super) fn longest_loop(address_file: &Path) -> Result<f64> {
    let address = fs::read_to_string(address_file)?;
    let mut stream = TcpStream::connect(address.trim())?;
    let stat = "worker_0.dispatcher.loop_duration_us";
    let request = format!(
        "GET /stats?filter={stat} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let longest = longest(&answer).with_context(|| format!("no {stat} in {answer:?}"))?;
    Ok(longest / 1e3)
}

/// The second number of the last quantile: of all time, not of the last interval.
fn longest(answer: &str) -> Option<f64> {
    let (_, last) = answer.rsplit_once("P100(")?;
    let (_, all) = last.split_once(',')?;
    all.split_once(')')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::longest;

    #[test]
    fn the_last_quantile_of_all_time_counts() {
        let line = "a.loop_duration_us: P0(nan,1) P50(nan,25.5) P100(2.0,1950.5)";
        assert_eq!(longest(line), Some(1950.5));
        assert_eq!(longest("a.loop_duration_us: No recorded values"), None);
    }
}
