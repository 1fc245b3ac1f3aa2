//! The environment: image, then caller, then what docker adds at the start.

use davit_store::{Error, Result};

/// PATH of containers whose image sets none.
pub(super) const DEFAULT_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The caller's variables, then those of the image that the caller does not
/// name: what inspect shows. A caller's "NAME" without "=" stays in the list,
/// so that the variable is taken out at the start.
pub(super) fn merge(caller: &[String], image: &[String]) -> Result<Vec<String>> {
    for variable in caller {
        if name(variable).is_empty() {
            return Err(Error::invalid(format!(
                "invalid environment variable: {variable}"
            )));
        }
    }
    let inherited = image
        .iter()
        .filter(|variable| !caller.iter().any(|own| name(own) == name(variable)))
        .cloned();
    Ok(caller.iter().cloned().chain(inherited).collect())
}

/// The environment of the first process: docker's additions, overridden and
/// completed by `config` (the result of [`merge`]).
pub(super) fn of_process(config: &[String], hostname: &str, tty: bool) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned()];
    if !hostname.is_empty() {
        env.push(format!("HOSTNAME={hostname}"));
    }
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    for variable in config {
        put(&mut env, variable);
    }
    env
}

/// Sets "NAME=value", or removes "NAME".
pub(super) fn put(env: &mut Vec<String>, variable: &str) {
    let place = env.iter().position(|old| name(old) == name(variable));
    match (place, variable.contains('=')) {
        (Some(place), true) => env[place] = variable.to_owned(),
        (Some(place), false) => {
            env.remove(place);
        }
        (None, true) => env.push(variable.to_owned()),
        (None, false) => {}
    }
}

/// Sets HOME unless it is there; what a login would do.
pub(super) fn put_home(env: &mut Vec<String>, home: &str) {
    let unset = !env.iter().any(|variable| name(variable) == "HOME");
    if unset && !home.is_empty() {
        env.push(format!("HOME={home}"));
    }
}

fn name(variable: &str) -> &str {
    variable.split_once('=').map_or(variable, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    #[test]
    fn the_caller_goes_before_the_image() {
        let merged = merge(&list(&["A=mine", "C"]), &list(&["A=image", "B=2", "C=3"])).unwrap();
        assert_eq!(merged, list(&["A=mine", "C", "B=2"]));
        let env = of_process(&merged, "h", true);
        assert_eq!(
            env,
            list(&[DEFAULT_PATH, "HOSTNAME=h", "TERM=xterm", "A=mine", "B=2"])
        );
    }

    #[test]
    fn defaults_can_be_replaced_and_removed() {
        let env = of_process(&list(&["PATH=/x", "TERM", "HOSTNAME=other"]), "h", true);
        assert_eq!(env, list(&["PATH=/x", "HOSTNAME=other"]));
    }

    #[test]
    fn home_comes_from_the_user_unless_set() {
        let mut env = list(&["A=1"]);
        put_home(&mut env, "/root");
        put_home(&mut env, "/other");
        assert_eq!(env, list(&["A=1", "HOME=/root"]));
    }

    #[test]
    fn a_variable_needs_a_name() {
        let error = merge(&list(&["=x"]), &[]).unwrap_err();
        assert_eq!(error.to_string(), "invalid environment variable: =x");
        assert!(merge(&list(&[""]), &[]).is_err());
    }
}
