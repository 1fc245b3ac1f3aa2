//! The plan of a container: everything that options, image and host decide.

use davit_store::{Error, Result, image_config::ImageConfig, options::ContainerOptions};

use super::{
    Inputs, NamespaceKind, NetworkMode, Plan, Shared,
    args::Command,
    capabilities, checks, devices, env, etc, mounts,
    resources::{self, Occasion},
    rlimits, seccomp,
    security::Security,
    signal, sysctl,
};

/// Digits of the id that name the host by default.
const SHORT_ID: usize = 12;

/// Checks what was asked for and plans the container.
///
/// # Errors
/// `InvalidArgument` for what can never run, in docker's words;
/// `Unimplemented` for what this version can't do.
pub fn plan(inputs: &Inputs<'_>) -> Result<Plan> {
    let Inputs {
        options,
        image,
        host,
        ..
    } = *inputs;
    let mut warnings = Vec::new();
    let shared = Shared::parse(options, host.cgroup.mode)?;
    checks::all(options, &shared, &mut warnings)?;
    let command = Command::resolve(options, image)?;
    let config = config(options, image, &command)?;
    checks::working_dir(&config.working_dir)?;
    let stop_signal = stop_signal(&config)?;
    let limits = resources::adapt(
        &options.resources,
        options.oom_kill_disable,
        host,
        Occasion::Create,
    )?;
    warnings.extend(limits.warnings);
    sysctl::check(options, &shared)?;
    etc::check(options)?;
    devices::check(options)?;
    capabilities::of_container(options, &host.capabilities, &mut warnings)?;
    rlimits::of_container(
        &options.ulimits,
        &inputs.defaults.ulimits,
        host,
        &mut warnings,
    )?;
    let security = Security::parse(options, host, &mut warnings)?;
    seccomp::check(&security.seccomp, host)?;
    let cgroup_path = cgroup_path(inputs)?;
    oom_score(options, host, &mut warnings);
    if options.init && inputs.defaults.init.is_none() {
        return Err(Error::precondition(
            "the daemon has no init binary: create the container without init",
        ));
    }
    let mounts = mounts::plan(options, &config.volumes, &mut warnings)?;
    let (path, args) = command.split();
    Ok(Plan {
        config,
        path,
        args,
        hostname: hostname(inputs, &shared),
        resources: limits.resources,
        shared,
        mounts,
        cgroup_path,
        stop_signal,
        warnings,
    })
}

/// The image's config with the options on top.
fn config(
    options: &ContainerOptions,
    image: &ImageConfig,
    command: &Command,
) -> Result<ImageConfig> {
    let or = |own: &String, inherited: &String| {
        if own.is_empty() {
            inherited.clone()
        } else {
            own.clone()
        }
    };
    let union = |own: &[String], inherited: &[String]| {
        let new = own.iter().filter(|item| !inherited.contains(item));
        inherited.iter().chain(new).cloned().collect::<Vec<_>>()
    };
    let mut labels = image.labels.clone();
    labels.extend(options.labels.clone());
    Ok(ImageConfig {
        user: or(&options.user, &image.user),
        exposed_ports: union(&options.exposed_ports, &image.exposed_ports),
        env: env::merge(&options.env, &image.env)?,
        entrypoint: command.entrypoint.clone(),
        cmd: command.cmd.clone(),
        volumes: union(&options.volumes, &image.volumes),
        working_dir: or(&options.working_dir, &image.working_dir),
        labels,
        stop_signal: or(&options.stop_signal, &image.stop_signal),
        healthcheck: health_check(options, image),
        on_build: image.on_build.clone(),
        shell: if options.shell.is_empty() {
            image.shell.clone()
        } else {
            options.shell.clone()
        },
    })
}

/// The caller's check, completed by the image's where it says nothing;
/// "NONE" switches it off.
fn health_check(
    options: &ContainerOptions,
    image: &ImageConfig,
) -> Option<davit_store::image_config::HealthCheck> {
    let (Some(own), Some(inherited)) = (&options.healthcheck, &image.healthcheck) else {
        return options
            .healthcheck
            .clone()
            .or_else(|| image.healthcheck.clone());
    };
    let mut check = own.clone();
    if check.test.is_empty() {
        check.test.clone_from(&inherited.test);
    }
    let numbers = [
        (&mut check.interval_ns, inherited.interval_ns),
        (&mut check.timeout_ns, inherited.timeout_ns),
        (&mut check.start_period_ns, inherited.start_period_ns),
        (&mut check.start_interval_ns, inherited.start_interval_ns),
    ];
    for (own, inherited) in numbers {
        if *own == 0 {
            *own = inherited;
        }
    }
    if check.retries == 0 {
        check.retries = inherited.retries;
    }
    Some(check)
}

fn stop_signal(config: &ImageConfig) -> Result<i32> {
    match config.stop_signal.as_str() {
        "" => signal::parse("TERM"),
        given => signal::parse(given),
    }
}

fn hostname(inputs: &Inputs<'_>, shared: &Shared) -> String {
    let options = inputs.options;
    if !options.hostname.is_empty() {
        return options.hostname.clone();
    }
    // docker gives containers on the host's network the host's name, too.
    if shared.host.contains(&NamespaceKind::Uts) || shared.network == NetworkMode::Host {
        return inputs.host.hostname.clone();
    }
    if matches!(shared.network, NetworkMode::Container(_)) {
        return String::new();
    }
    inputs.id.chars().take(SHORT_ID).collect()
}

/// "/<parent>/<id>". The parent is a path below each hierarchy's root.
fn cgroup_path(inputs: &Inputs<'_>) -> Result<String> {
    let parent = match inputs.options.cgroup_parent.as_str() {
        "" => inputs.defaults.cgroup_parent.as_str(),
        given => given,
    };
    let odd = |part: &str| part == ".." || part.chars().any(char::is_control);
    if parent.split('/').any(odd) {
        return Err(Error::invalid(format!(
            "invalid cgroup parent {parent:?}: use a path below the cgroups' root"
        )));
    }
    Ok(mounts::clean(&format!("/{parent}/{}", inputs.id)))
}

/// The score that is set: without CAP_SYS_RESOURCE not below the daemon's own.
pub(super) fn oom_score(
    options: &ContainerOptions,
    host: &super::HostFacts,
    warnings: &mut Vec<String>,
) -> i32 {
    let (wanted, own) = (options.oom_score_adj, host.oom_score_adj);
    if wanted >= own || host.may_raise_limits() {
        return wanted;
    }
    // The default is nobody's wish, so nobody needs to be told.
    if wanted != 0 {
        warnings.push(format!(
            "The daemon may not lower oom_score_adj below its own: it is {own} instead of {wanted}."
        ));
    }
    own
}

#[cfg(test)]
mod tests {
    use davit_store::{Kind, image_config::HealthCheck};

    use super::*;
    use crate::spec::{Defaults, host::tests::able};

    fn planned(image: &ImageConfig, options: &ContainerOptions) -> Result<Plan> {
        let defaults = Defaults {
            cgroup_parent: "davit".to_owned(),
            ..Default::default()
        };
        let (id, host) = ("0123456789abcdef".repeat(4), able());
        plan(&Inputs {
            id: &id,
            options,
            image,
            host: &host,
            defaults: &defaults,
        })
    }

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: list(&["e"]),
            cmd: list(&["c"]),
            env: list(&["A=1", "B=2"]),
            user: "bob".to_owned(),
            labels: [
                ("k".to_owned(), "image".to_owned()),
                ("l".to_owned(), "image".to_owned()),
            ]
            .into(),
            exposed_ports: list(&["80/tcp"]),
            stop_signal: "INT".to_owned(),
            healthcheck: Some(HealthCheck {
                test: list(&["CMD", "t"]),
                retries: 5,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn options() -> ContainerOptions {
        ContainerOptions {
            args: Some(list(&["a"])),
            env: list(&["B=3", "C"]),
            labels: [("k".to_owned(), "own".to_owned())].into(),
            exposed_ports: list(&["81/udp", "80/tcp"]),
            healthcheck: Some(HealthCheck {
                interval_ns: 1_000_000_000,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn options_lie_on_the_image() {
        let plan = planned(&image(), &options()).unwrap();
        assert_eq!((plan.path.as_str(), plan.args), ("e", list(&["a"])));
        assert_eq!(plan.config.env, list(&["B=3", "C", "A=1"]));
        assert_eq!(plan.config.labels["k"], "own");
        assert_eq!(plan.config.exposed_ports, list(&["80/tcp", "81/udp"]));
        let check = plan.config.healthcheck.unwrap();
        assert_eq!(
            (check.test, check.retries, check.interval_ns),
            (list(&["CMD", "t"]), 5, 1_000_000_000)
        );
        assert_eq!(
            (plan.stop_signal, plan.hostname.as_str()),
            (2, "0123456789ab")
        );
        assert_eq!(
            plan.cgroup_path,
            format!("/davit/{}", "0123456789abcdef".repeat(4))
        );
        assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    }

    /// Starts plan again, with the config that Create came to in the image's
    /// place: the outcome must be the same.
    #[test]
    fn planning_again_changes_nothing() {
        let entrypoints = [None, Some(vec![]), Some(list(&[""])), Some(list(&["x"]))];
        let args = [None, Some(vec![]), Some(list(&["a", "b"]))];
        for entrypoint in entrypoints {
            for args in &args {
                let options = ContainerOptions {
                    entrypoint: entrypoint.clone(),
                    args: args.clone(),
                    ..options()
                };
                let first = planned(&image(), &options).unwrap();
                let again = planned(&first.config, &options).unwrap();
                assert_eq!((&again.path, &again.args), (&first.path, &first.args));
                assert_eq!(again.config, first.config);
            }
        }
    }

    #[test]
    fn host_names() {
        let name = |change: fn(&mut ContainerOptions)| {
            let mut options = ContainerOptions::default();
            change(&mut options);
            planned(&image(), &options).unwrap().hostname
        };
        assert_eq!(name(|o| o.hostname = "own".into()), "own");
        assert_eq!(name(|o| o.network_mode = "host".into()), "host");
        assert_eq!(name(|o| o.uts_mode = "host".into()), "host");
        assert_eq!(name(|o| o.network_mode = "container:x".into()), "");
    }

    #[test]
    fn cgroup_parents() {
        let with = |parent: &str| {
            let options = ContainerOptions {
                cgroup_parent: parent.to_owned(),
                ..Default::default()
            };
            planned(&image(), &options).map(|plan| plan.cgroup_path)
        };
        assert!(with("/a//b/").unwrap().starts_with("/a/b/0123"));
        assert_eq!(with("../x").unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(with("a\nb").unwrap_err().kind(), Kind::InvalidArgument);
    }

    #[test]
    fn what_is_refused_and_what_is_told() {
        let text = |change: fn(&mut ContainerOptions)| {
            let mut options = ContainerOptions::default();
            change(&mut options);
            planned(&image(), &options).unwrap_err().to_string()
        };
        assert_eq!(
            text(|o| o.stop_signal = "FOO".into()),
            "invalid signal: FOO"
        );
        assert_eq!(
            text(|o| o.init = true),
            "the daemon has no init binary: create the container without init"
        );
        let mut host = able();
        host.capabilities.remove("CAP_SYS_RESOURCE");
        let score = |wanted, own, warnings: &mut Vec<String>| {
            let host = crate::spec::HostFacts {
                oom_score_adj: own,
                ..host.clone()
            };
            oom_score(
                &ContainerOptions {
                    oom_score_adj: wanted,
                    ..Default::default()
                },
                &host,
                warnings,
            )
        };
        let mut warnings = Vec::new();
        assert_eq!(score(0, 500, &mut warnings), 500);
        assert!(warnings.is_empty());
        assert_eq!((score(-10, 0, &mut warnings), warnings.len()), (0, 1));
        assert_eq!(score(10, 0, &mut warnings), 10);
    }
}
