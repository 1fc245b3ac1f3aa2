//! Gives memory back after work: a daemon that idles for months should not hold what one pull needed.

use std::time::Duration;

use davit_sys::memory::{Code, trim};
use nix::sys::resource::{UsageWho, getrusage};

/// How often the daemon's CPU time is looked at while there is work.
const WORKING: Duration = Duration::from_secs(1);
/// The same while there is none.
const IDLE: Duration = Duration::from_secs(10);
/// A second with less CPU time than this is a quiet one, in microseconds.
const QUIET: i64 = 10_000;

/// After each spell of work, and once after the start, gives free pages of the heap back and forgets the code that
/// has run: what is needed again comes back from the page cache by minor faults. Runs for ever.
pub(crate) async fn tidy() {
    let code = Code::find();
    let mut pause = WORKING;
    let mut before = cpu_time();
    loop {
        tokio::time::sleep(pause).await;
        let now = cpu_time();
        let worked = now - before >= QUIET;
        before = now;
        if worked {
            pause = WORKING;
        } else if pause == WORKING {
            trim();
            code.forget();
            pause = IDLE;
        }
    }
}

/// Microseconds of CPU that this process has used.
fn cpu_time() -> i64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        micros(usage.user_time()) + micros(usage.system_time())
    })
}
