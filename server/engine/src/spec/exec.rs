//! One more process in a running container.

use davit_store::{Error, Result, image_config::ImageConfig, options::ExecOptions};
use oci_spec::runtime::{BoxBuilder, Process, ProcessBuilder, Spec};

use super::{
    HostFacts, Identity, RootfsView,
    build::{cwd, spec_user},
    capabilities, checks, env,
    user::resolve_user,
};

/// What an exec is made from.
#[derive(Debug, Clone, Copy)]
pub struct ExecInputs<'a> {
    /// What was asked for.
    pub options: &'a ExecOptions,
    /// The container's own spec, as it was started.
    pub spec: &'a Spec,
    /// The container's files.
    pub rootfs: &'a dyn RootfsView,
    /// Its config (image and options), for user and environment.
    pub config: &'a ImageConfig,
    /// Its further groups, which an exec without a user of its own gets, too.
    pub group_add: &'a [String],
    /// What this host can do.
    pub host: &'a HostFacts,
}

/// Makes the process of an exec: the container's environment, user,
/// capabilities and confinement, with the options on top.
///
/// # Errors
/// `InvalidArgument` in docker's words.
pub fn exec_process(inputs: &ExecInputs<'_>) -> Result<Process> {
    let options = inputs.options;
    if options.args.is_empty() {
        return Err(Error::invalid("No exec command specified"));
    }
    if options
        .args
        .iter()
        .chain(&options.env)
        .any(|text| text.contains('\0'))
    {
        return Err(Error::invalid("args or env of the exec contain a NUL byte"));
    }
    checks::working_dir(&options.working_dir)?;
    let own = inputs
        .spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::internal("the container's spec has no process"))?;
    let user = user(inputs)?;
    let caps = capabilities_of(inputs, own);
    let dir = if options.working_dir.is_empty() {
        own.cwd().clone()
    } else {
        cwd(&options.working_dir)
    };
    let mut process = ProcessBuilder::default()
        .terminal(options.tty)
        .user(spec_user(&user)?)
        .args(options.args.clone())
        .env(environment(inputs, own, &user)?)
        .cwd(dir)
        .capabilities(capabilities::of_process(&caps, user.uid)?)
        .rlimits(own.rlimits().clone().unwrap_or_default())
        .no_new_privileges(own.no_new_privileges().unwrap_or(false))
        .build()
        .map_err(|error| Error::internal("making the process of an exec").with_source(error))?;
    process.set_oom_score_adj(own.oom_score_adj());
    process.set_selinux_label(own.selinux_label().clone());
    if !options.privileged {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if let Some(size) = options.terminal_size.as_ref().filter(|_| options.tty) {
        let size = BoxBuilder::default()
            .width(u64::from(size.width))
            .height(u64::from(size.height))
            .build();
        process.set_console_size(size.ok());
    }
    Ok(process)
}

fn user(inputs: &ExecInputs<'_>) -> Result<Identity> {
    match inputs.options.user.as_str() {
        "" => resolve_user(inputs.rootfs, &inputs.config.user, inputs.group_add),
        given => resolve_user(inputs.rootfs, given, &[]),
    }
}

/// The container's environment without what its own start added (HOME of its
/// user, TERM), then the exec's.
fn environment(inputs: &ExecInputs<'_>, own: &Process, user: &Identity) -> Result<Vec<String>> {
    let mut env = own.env().clone().unwrap_or_default();
    let configured = |name: &str| {
        inputs
            .config
            .env
            .iter()
            .any(|variable| variable.split('=').next() == Some(name))
    };
    for name in ["HOME", "TERM"]
        .into_iter()
        .filter(|name| !configured(name))
    {
        env::put(&mut env, name);
    }
    if inputs.options.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    for variable in env::merge(&inputs.options.env, &[])? {
        env::put(&mut env, &variable);
    }
    env::put_home(&mut env, &user.home);
    Ok(env)
}

fn capabilities_of(inputs: &ExecInputs<'_>, own: &Process) -> std::collections::BTreeSet<String> {
    if inputs.options.privileged {
        return inputs.host.capabilities.clone();
    }
    let bounding = own
        .capabilities()
        .as_ref()
        .and_then(|caps| caps.bounding().clone())
        .unwrap_or_default();
    bounding.iter().map(|cap| format!("CAP_{cap}")).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io, path::Path};

    use oci_spec::runtime::{SpecBuilder, UserBuilder};

    use super::*;
    use crate::spec::host::tests::able;

    /// Has /etc/passwd with bob in it.
    #[derive(Debug)]
    struct Rootfs(tempfile::TempDir);

    impl RootfsView for Rootfs {
        fn open(&self, path: &Path) -> io::Result<Option<File>> {
            Ok(File::open(self.0.path().join(path.file_name().unwrap_or_default())).ok())
        }
    }

    fn exec(options: &ExecOptions, config: &ImageConfig) -> Result<Process> {
        let dir = tempfile::tempdir().unwrap();
        let passwd = "root:x:0:0::/root:\nbob:x:1000:1001::/home/bob:\n";
        std::fs::write(dir.path().join("passwd"), passwd).unwrap();
        let caps = capabilities::of_process(
            &["CAP_CHOWN".to_owned(), "CAP_SYS_CHROOT".to_owned()].into(),
            0,
        )
        .unwrap();
        let own = ProcessBuilder::default()
            .user(UserBuilder::default().build().unwrap())
            .env(
                ["PATH=/p", "HOSTNAME=h", "TERM=xterm", "A=1", "HOME=/root"]
                    .map(str::to_owned)
                    .to_vec(),
            )
            .cwd("/work")
            .capabilities(caps)
            .no_new_privileges(true)
            .oom_score_adj(7)
            .build()
            .unwrap();
        let spec = SpecBuilder::default().process(own).build().unwrap();
        exec_process(&ExecInputs {
            options,
            spec: &spec,
            rootfs: &Rootfs(dir),
            config,
            group_add: &["29".to_owned()],
            host: &able(),
        })
    }

    fn options(args: &[&str]) -> ExecOptions {
        ExecOptions {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn an_exec_takes_after_its_container() {
        let config = ImageConfig {
            env: vec!["A=1".to_owned()],
            user: "bob".to_owned(),
            ..Default::default()
        };
        let process = exec(&options(&["ls"]), &config).unwrap();
        assert_eq!(
            process.env().as_ref().unwrap(),
            &["PATH=/p", "HOSTNAME=h", "A=1", "HOME=/home/bob"]
        );
        assert_eq!(process.cwd(), Path::new("/work"));
        assert_eq!(
            (
                process.user().uid(),
                process.no_new_privileges(),
                process.oom_score_adj()
            ),
            (1000, Some(true), Some(7))
        );
        assert_eq!(
            process.user().additional_gids().as_ref().unwrap(),
            &[1001, 29]
        );
        let caps = process.capabilities().clone().unwrap();
        assert_eq!(
            (
                caps.bounding().clone().unwrap().len(),
                caps.effective().clone().unwrap().len()
            ),
            (2, 0)
        );
    }

    #[test]
    fn its_own_options_go_first() {
        let config = ImageConfig {
            env: vec!["HOME=/set".to_owned()],
            ..Default::default()
        };
        let given = ExecOptions {
            env: vec!["A=2".to_owned(), "PATH".to_owned()],
            user: "bob".to_owned(),
            working_dir: "/x/../y".to_owned(),
            tty: true,
            privileged: true,
            terminal_size: Some(davit_store::options::TerminalSize {
                width: 80,
                height: 24,
            }),
            ..options(&["sh"])
        };
        let process = exec(&given, &config).unwrap();
        assert_eq!(
            process.env().as_ref().unwrap(),
            &["HOSTNAME=h", "A=2", "HOME=/root", "TERM=xterm"]
        );
        assert_eq!(process.cwd(), Path::new("/y"));
        assert_eq!(process.user().additional_gids().as_ref().unwrap(), &[1001]);
        assert_eq!(process.console_size().unwrap().width(), 80);
        let caps = process.capabilities().clone().unwrap();
        assert_eq!(
            caps.bounding().clone().unwrap().len(),
            capabilities::ALL.len()
        );
    }

    #[test]
    fn refusals_in_dockers_words() {
        let text = |options: &ExecOptions| {
            exec(options, &ImageConfig::default())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(text(&options(&[])), "No exec command specified");
        let user = ExecOptions {
            user: "nope".to_owned(),
            ..options(&["x"])
        };
        assert_eq!(
            text(&user),
            "unable to find user nope: no matching entries in passwd file"
        );
        let dir = ExecOptions {
            working_dir: "rel".to_owned(),
            ..options(&["x"])
        };
        assert!(text(&dir).starts_with("the working directory 'rel' is invalid"));
        assert!(text(&options(&["a\0b"])).contains("NUL"));
    }
}
