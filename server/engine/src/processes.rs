//! The processes of a container, as ps(1) shows them.
//!
//! The usual list ("-ef") is made from /proc, so that it costs no program and
//! works where procps is not installed. Any other arguments go to the host's
//! ps, and what is not the container's is taken out of its answer.

mod own;

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use davit_store::{Error, Kind, Result};

use crate::{model::Processes, spec::HostFacts, usage::Measured};

/// Longest wait for ps.
const DEADLINE: Duration = Duration::from_secs(10);

/// Most output of ps that is read.
const MAX_OUTPUT: usize = 8 << 20;

/// Lists the processes of a running container. `ps_args` are ps's arguments,
/// split at white space; "-ef" when empty.
///
/// # Errors
/// `InvalidArgument` for arguments without a PID column or that ps refuses;
/// `Unimplemented` when there is no ps; `NotFound` when the container does not
/// run any more.
pub async fn list(host: &HostFacts, of: &Measured<'_>, ps_args: &str) -> Result<Processes> {
    let pids = of.cgroup(host)?.processes()?;
    let args: Vec<&str> = ps_args.split_whitespace().collect();
    if matches!(args.as_slice(), [] | ["-ef"]) {
        return Ok(own::full(&pids));
    }
    check(ps_args)?;
    // With -q ps looks at these processes only; it does not go with every
    // other selection, so the second try is without it.
    let list = pids
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let narrow = format!("-q{list}");
    let output = match run(args.iter().copied().chain([narrow.as_str()])).await {
        Err(error) if error.kind() == Kind::InvalidArgument => run(args.iter().copied()).await?,
        other => other?,
    };
    parse(&output, &pids)
}

async fn run(args: impl Iterator<Item = &str>) -> Result<String> {
    let mut command = tokio::process::Command::new("ps");
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .map_err(|_| Error::new(Kind::DeadlineExceeded, "ps gave no answer within 10 s"))?
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(
                Kind::Unimplemented,
                "this host has no ps: leave its arguments out, or install procps",
            ),
            _ => Error::io("running ps", error),
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::invalid(format!("error running ps: {}", said.trim())));
    }
    if output.stdout.len() > MAX_OUTPUT {
        return Err(Error::new(
            Kind::ResourceExhausted,
            "ps gave more than 8 MiB",
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Refuses arguments that call another column "PID": rows of other containers
/// would be taken for this one's.
fn check(ps_args: &str) -> Result<()> {
    for word in ps_args.split(|c: char| c.is_whitespace() || c == ',') {
        if let Some((column, title)) = word.split_once('=')
            && title.starts_with("PID")
            && !column.trim_start_matches("-o").eq("pid")
        {
            return Err(Error::invalid(format!(
                "specifying \"{column}={title}\" is not allowed"
            )));
        }
    }
    Ok(())
}

/// Splits ps's answer and keeps the container's rows.
fn parse(output: &str, pids: &BTreeSet<u32>) -> Result<Processes> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let place = titles.iter().position(|title| title == "PID");
    let place = place.ok_or_else(|| Error::invalid("Couldn't find PID field in ps output"))?;
    let mut rows = Vec::new();
    let mut kept = false;
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let fields = fields(line, titles.len());
        match fields.get(place).map(String::as_str) {
            // A thread of the process in the row before.
            Some("-") if kept => rows.push(fields),
            Some("-") => {}
            Some(text) => {
                let pid = text
                    .parse::<u32>()
                    .map_err(|_| Error::invalid(format!("Unexpected pid '{text}'")))?;
                kept = pids.contains(&pid);
                if kept {
                    rows.push(fields);
                }
            }
            None => return Err(Error::invalid(format!("unexpected line of ps: {line}"))),
        }
    }
    Ok(Processes { titles, rows })
}

/// As many fields as there are titles; the last takes the rest of the line.
fn fields(line: &str, count: usize) -> Vec<String> {
    let mut words = line.split_whitespace();
    let mut fields: Vec<String> = words
        .by_ref()
        .take(count.saturating_sub(1))
        .map(str::to_owned)
        .collect();
    let rest: Vec<&str> = words.collect();
    if !rest.is_empty() {
        fields.push(rest.join(" "));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pid: u32) -> Measured<'static> {
        Measured {
            id: "i",
            name: "n",
            pid,
            cgroup_path: "/there-is-no-such-cgroup",
            own_network: true,
        }
    }

    #[tokio::test]
    async fn this_process_is_listed_both_ways() {
        let host = HostFacts::detect().unwrap();
        let pid = std::process::id().to_string();
        let own = list(&host, &of(std::process::id()), "").await.unwrap();
        assert_eq!(
            own.titles,
            ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        );
        assert!(own.rows.iter().any(|row| row[1] == pid));
        let ps = list(&host, &of(std::process::id()), "-eo pid,args")
            .await
            .unwrap();
        assert_eq!(ps.titles, ["PID", "COMMAND"]);
        assert!(ps.rows.iter().any(|row| row[0] == pid));
    }

    #[tokio::test]
    async fn odd_arguments_are_refused() {
        let host = HostFacts::detect().unwrap();
        let text = async |args: &str| {
            list(&host, &of(std::process::id()), args)
                .await
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            text("-eo args").await,
            "Couldn't find PID field in ps output"
        );
        assert_eq!(
            text("-eo pid=other,ppid=PID").await,
            "specifying \"ppid=PID\" is not allowed"
        );
        assert!(text("--bogus").await.starts_with("error running ps:"));
    }

    #[test]
    fn rows_of_others_go() {
        let output = "PID  TTY CMD\n  1 ?   init a  b\n  - ?   thread\n 22 ?   other\n  - ?   thread\n 3  ?   x\n";
        let found = parse(output, &[1, 3].into()).unwrap();
        assert_eq!(found.rows.len(), 3);
        assert_eq!(found.rows[0], ["1", "?", "init a b"]);
        assert!(parse("PID\nx\n", &BTreeSet::new()).is_err());
    }
}
