//! Ulimits.

use std::str::FromStr;

use davit_store::{Error, Result, options::Ulimit};
use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};

use super::HostFacts;

/// The caller's ulimits over the daemon's, checked. Where the daemon may not
/// raise hard limits, they are cut to its own with a warning, since the start
/// would fail otherwise.
pub(super) fn of_container(
    caller: &[Ulimit],
    daemon: &[Ulimit],
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<Vec<PosixRlimit>> {
    let inherited = daemon
        .iter()
        .filter(|limit| !caller.iter().any(|own| own.name == limit.name));
    caller
        .iter()
        .chain(inherited)
        .map(|limit| one(limit, host, warnings))
        .collect()
}

fn one(limit: &Ulimit, host: &HostFacts, warnings: &mut Vec<String>) -> Result<PosixRlimit> {
    let Ulimit { name, soft, hard } = limit;
    let typ = PosixRlimitType::from_str(&format!("RLIMIT_{}", name.to_ascii_uppercase()))
        .map_err(|_| Error::invalid(format!("invalid ulimit type: {name}")))?;
    if *soft < -1 || *hard < -1 {
        return Err(Error::invalid(format!(
            "invalid ulimit {name}: {soft}:{hard}; use -1 for no limit"
        )));
    }
    let (mut soft_limit, mut hard_limit) = (value(*soft), value(*hard));
    if soft_limit > hard_limit {
        let text =
            format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}");
        return Err(Error::invalid(text));
    }
    if !host.may_raise_limits()
        && let Some(own) = own_hard_limit(typ)
        && hard_limit > own
    {
        warnings.push(format!(
            "The daemon may not raise limits: ulimit {name} is {own} instead of {hard}."
        ));
        hard_limit = own;
        soft_limit = soft_limit.min(own);
    }
    PosixRlimitBuilder::default()
        .typ(typ)
        .soft(soft_limit)
        .hard(hard_limit)
        .build()
        .map_err(|error| Error::internal(format!("making ulimit {name}")).with_source(error))
}

/// -1 is "unlimited": RLIM_INFINITY, all bits set.
fn value(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

fn own_hard_limit(typ: PosixRlimitType) -> Option<u64> {
    use rustix::process::Resource as R;
    let resource = match typ {
        PosixRlimitType::RlimitCpu => R::Cpu,
        PosixRlimitType::RlimitFsize => R::Fsize,
        PosixRlimitType::RlimitData => R::Data,
        PosixRlimitType::RlimitStack => R::Stack,
        PosixRlimitType::RlimitCore => R::Core,
        PosixRlimitType::RlimitRss => R::Rss,
        PosixRlimitType::RlimitNproc => R::Nproc,
        PosixRlimitType::RlimitNofile => R::Nofile,
        PosixRlimitType::RlimitMemlock => R::Memlock,
        PosixRlimitType::RlimitAs => R::As,
        PosixRlimitType::RlimitLocks => R::Locks,
        PosixRlimitType::RlimitSigpending => R::Sigpending,
        PosixRlimitType::RlimitMsgqueue => R::Msgqueue,
        PosixRlimitType::RlimitNice => R::Nice,
        PosixRlimitType::RlimitRtprio => R::Rtprio,
        PosixRlimitType::RlimitRttime => R::Rttime,
    };
    rustix::process::getrlimit(resource).maximum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::host::tests::able;

    fn limit(name: &str, soft: i64, hard: i64) -> Ulimit {
        Ulimit {
            name: name.to_owned(),
            soft,
            hard,
        }
    }

    #[test]
    fn the_caller_goes_before_the_daemon() {
        let caller = [limit("nofile", 10, 20)];
        let daemon = [limit("nofile", 1, 2), limit("core", -1, -1)];
        let limits = of_container(&caller, &daemon, &able(), &mut Vec::new()).unwrap();
        assert_eq!(limits.len(), 2);
        assert_eq!((limits[0].soft(), limits[0].hard()), (10, 20));
        assert_eq!(limits[1].hard(), u64::MAX);
    }

    #[test]
    fn refusals_in_dockers_words() {
        let text = |one: Ulimit| {
            of_container(&[one], &[], &able(), &mut Vec::new())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(text(limit("bogus", 1, 1)), "invalid ulimit type: bogus");
        assert_eq!(
            text(limit("nofile", 3, 2)),
            "ulimit soft limit must be less than or equal to hard limit: 3 > 2"
        );
        assert_eq!(
            text(limit("core", -1, 0)),
            "ulimit soft limit must be less than or equal to hard limit: -1 > 0"
        );
        assert!(text(limit("core", -2, 0)).contains("use -1"));
    }

    #[test]
    fn a_daemon_without_the_right_says_so() {
        let mut host = able();
        host.capabilities.remove("CAP_SYS_RESOURCE");
        let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let mut warnings = Vec::new();
        let limits = of_container(
            &[limit("nofile", i64::MAX, i64::MAX)],
            &[],
            &host,
            &mut warnings,
        )
        .unwrap();
        if let Some(own) = own {
            assert_eq!(limits[0].hard(), own);
            assert_eq!(warnings.len(), 1);
        }
    }
}
