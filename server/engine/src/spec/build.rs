//! The runtime spec of one start.

use std::path::PathBuf;

use davit_store::{Error, Result};
use oci_spec::{
    OciSpecError,
    runtime::{
        BoxBuilder, Linux, LinuxBuilder, LinuxResources, Process, ProcessBuilder, RootBuilder,
        SpecBuilder, UserBuilder,
    },
};

use super::{
    Built, Identity, Inputs, NamespaceKind, NetworkMode, Plan, Start, capabilities, devices, env,
    mounts,
    plan::{oom_score, plan},
    resources::{Adapted, Occasion, adapt},
    rlimits, seccomp,
    security::Security,
    sysctl,
    user::resolve_user,
};

/// Version of the runtime spec that is kept to. crun 1.8 refuses 1.1 and
/// newer, and nothing newer is used.
const OCI_VERSION: &str = "1.0.2";

/// Makes the spec for a start.
///
/// # Errors
/// Those of [`plan`]; `InvalidArgument` when user, groups, devices or sources
/// of binds are not there; `FailedPrecondition` when a namespace to join is
/// not given.
pub fn build(inputs: &Inputs<'_>, start: &Start<'_>) -> Result<Built> {
    let mut plan = plan(inputs)?;
    plan.mounts = start.mounts.to_vec();
    if matches!(plan.shared.network, NetworkMode::Container(_)) {
        plan.hostname = hostname_of_donor(start);
    }
    // The plan has said all of it already.
    let told = &mut Vec::new();
    let user = resolve_user(start.rootfs, &plan.config.user, &inputs.options.group_add)?;
    let security = Security::parse(inputs.options, inputs.host, told)?;
    let caps = capabilities::of_container(inputs.options, &inputs.host.capabilities, told)?;
    let devices = devices::gather(inputs.options)?;
    let process = process(inputs, &plan, &user, &security, &caps)?;
    let linux = linux(
        inputs,
        &plan,
        start,
        &security,
        devices,
        seccomp::of_container(&security.seccomp, &caps, inputs.host)?,
    )?;
    let root = RootBuilder::default()
        .path(start.root_path)
        .readonly(inputs.options.read_only)
        .build()
        .map_err(entry)?;
    let mounts = mounts::assemble(inputs.options, &plan, start, inputs.defaults)?;
    let mut builder = SpecBuilder::default()
        .version(OCI_VERSION)
        .root(root)
        .mounts(mounts)
        .process(process)
        .linux(linux);
    // Sets the name in a UTS namespace of the container's own only.
    if plan.shared.is_own(NamespaceKind::Uts) && !plan.hostname.is_empty() {
        builder = builder.hostname(plan.hostname.as_str());
    }
    if !inputs.options.annotations.is_empty() {
        builder = builder.annotations(
            inputs
                .options
                .annotations
                .clone()
                .into_iter()
                .collect::<std::collections::HashMap<_, _>>(),
        );
    }
    let mut spec = builder.build().map_err(entry)?;
    if !plan.shared.is_own(NamespaceKind::Uts) || plan.hostname.is_empty() {
        spec.set_hostname(None);
    }
    Ok(Built {
        spec,
        plan,
        user,
        warnings: Vec::new(),
    })
}

fn process(
    inputs: &Inputs<'_>,
    plan: &Plan,
    user: &Identity,
    security: &Security,
    caps: &std::collections::BTreeSet<String>,
) -> Result<Process> {
    let options = inputs.options;
    let mut env = env::of_process(&plan.config.env, &plan.hostname, options.tty);
    env::put_home(&mut env, &user.home);
    let mut args = vec![plan.path.clone()];
    args.extend(plan.args.iter().cloned());
    if options.init {
        args.splice(0..0, [mounts::INIT_TARGET.to_owned(), "--".to_owned()]);
    }
    let rlimits = rlimits::of_container(
        &options.ulimits,
        &inputs.defaults.ulimits,
        inputs.host,
        &mut Vec::new(),
    )?;
    let mut process = ProcessBuilder::default()
        .terminal(options.tty)
        .user(spec_user(user)?)
        .args(args)
        .env(env)
        .cwd(cwd(&plan.config.working_dir))
        .capabilities(capabilities::of_process(caps, user.uid)?)
        .rlimits(rlimits)
        .no_new_privileges(security.no_new_privileges)
        .oom_score_adj(oom_score(options, inputs.host, &mut Vec::new()))
        .build()
        .map_err(entry)?;
    if let Some(size) = options.terminal_size.as_ref().filter(|_| options.tty) {
        let size = BoxBuilder::default()
            .width(u64::from(size.width))
            .height(u64::from(size.height))
            .build()
            .map_err(entry)?;
        process.set_console_size(Some(size));
    }
    if !security.apparmor.is_empty() {
        process.set_apparmor_profile(Some(security.apparmor.clone()));
    }
    if !security.selinux_process.is_empty() {
        process.set_selinux_label(Some(security.selinux_process.clone()));
    }
    Ok(process)
}

pub(super) fn spec_user(user: &Identity) -> Result<oci_spec::runtime::User> {
    UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(user.groups.clone())
        .build()
        .map_err(entry)
}

pub(super) fn cwd(dir: &str) -> PathBuf {
    PathBuf::from(if dir.is_empty() {
        "/".to_owned()
    } else {
        mounts::clean(dir)
    })
}

fn linux(
    inputs: &Inputs<'_>,
    plan: &Plan,
    start: &Start<'_>,
    security: &Security,
    devices: devices::Devices,
    seccomp: Option<oci_spec::runtime::LinuxSeccomp>,
) -> Result<Linux> {
    let mut limits = limits(inputs)?;
    limits.set_devices(Some(devices.rules));
    let mut builder = LinuxBuilder::default()
        .namespaces(plan.shared.to_spec(start.namespaces)?)
        .resources(limits)
        .cgroups_path(PathBuf::from(&plan.cgroup_path))
        .devices(devices.nodes)
        .masked_paths(security.masked.clone())
        .readonly_paths(security.read_only.clone())
        .sysctl(sysctl::of_container(inputs.options, &plan.shared));
    if let Some(seccomp) = seccomp {
        builder = builder.seccomp(seccomp);
    }
    if let Some(propagation) = mounts::root_propagation(&plan.mounts) {
        builder = builder.rootfs_propagation(propagation);
    }
    if !security.selinux_mount.is_empty() {
        builder = builder.mount_label(security.selinux_mount.as_str());
    }
    builder.build().map_err(entry)
}

fn limits(inputs: &Inputs<'_>) -> Result<LinuxResources> {
    let options = inputs.options;
    let adapted: Adapted = adapt(
        &options.resources,
        options.oom_kill_disable,
        inputs.host,
        Occasion::Create,
    )?;
    adapted.to_spec()
}

/// A container on another's network is called as that one is; its generated
/// /etc/hostname, which is bound here too, says how.
fn hostname_of_donor(start: &Start<'_>) -> String {
    let text = start
        .etc
        .hostname
        .as_ref()
        .and_then(|path| std::fs::read_to_string(path).ok());
    text.unwrap_or_default().trim().to_owned()
}

fn entry(error: OciSpecError) -> Error {
    Error::internal("making the runtime spec").with_source(error)
}
