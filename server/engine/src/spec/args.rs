//! What runs: the image's ENTRYPOINT and CMD against the caller's.

use davit_store::{Error, Result, image_config::ImageConfig, options::ContainerOptions};

/// The outcome for one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) entrypoint: Vec<String>,
    pub(super) cmd: Vec<String>,
}

impl Command {
    /// Applies the rule:
    ///
    /// | image has | caller gives | runs |
    /// | --- | --- | --- |
    /// | CMD c | nothing | c |
    /// | CMD c | args a | a |
    /// | ENTRYPOINT e, CMD c | nothing | e c |
    /// | ENTRYPOINT e, CMD c | args a | e a |
    /// | ENTRYPOINT e, CMD c | entrypoint x | x |
    /// | ENTRYPOINT e, CMD c | entrypoint x, args a | x a |
    /// | any | entrypoint "" | entrypoint cleared, then as above |
    pub(super) fn resolve(options: &ContainerOptions, image: &ImageConfig) -> Result<Self> {
        // An empty list of arguments leaves the image's, as docker does.
        let args = options.args.as_deref().filter(|args| !args.is_empty());
        let (entrypoint, image_cmd): (&[String], &[String]) = match options.entrypoint.as_deref() {
            None => (&image.entrypoint, &image.cmd),
            Some(given) if is_cleared(given) => (&[], &image.cmd),
            Some(given) => (given, &[]),
        };
        let cmd = args.unwrap_or(image_cmd);
        if entrypoint.is_empty() && cmd.is_empty() {
            return Err(Error::invalid("no command specified"));
        }
        Ok(Self {
            entrypoint: entrypoint.to_vec(),
            cmd: cmd.to_vec(),
        })
    }

    /// The path, and the arguments behind it.
    pub(super) fn split(&self) -> (String, Vec<String>) {
        let mut words = self.entrypoint.iter().chain(&self.cmd).cloned();
        let path = words.next().unwrap_or_default();
        (path, words.collect())
    }
}

fn is_cleared(entrypoint: &[String]) -> bool {
    entrypoint.is_empty() || (entrypoint.len() == 1 && entrypoint[0].is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn runs(entrypoint: &str, cmd: &str, x: Option<&str>, a: Option<&str>) -> Result<Vec<String>> {
        let image = ImageConfig {
            entrypoint: words(entrypoint),
            cmd: words(cmd),
            ..Default::default()
        };
        let options = ContainerOptions {
            entrypoint: x.map(words),
            args: a.map(words),
            ..Default::default()
        };
        let (path, mut args) = Command::resolve(&options, &image)?.split();
        args.insert(0, path);
        Ok(args)
    }

    #[test]
    fn the_table() {
        let table = [
            ("", "c", None, None, "c"),
            ("", "c 1", None, Some("a 2"), "a 2"),
            ("e 0", "c 1", None, None, "e 0 c 1"),
            ("e 0", "c 1", None, Some("a 2"), "e 0 a 2"),
            ("e", "c", Some("x"), None, "x"),
            ("e", "c", Some("x y"), Some("a"), "x y a"),
            ("e", "c", Some(""), None, "c"),
            ("e", "c", Some(""), Some("a"), "a"),
            ("e", "", None, None, "e"),
            ("e", "c", None, Some(""), "e c"),
        ];
        for (entrypoint, cmd, x, a, expected) in table {
            assert_eq!(
                runs(entrypoint, cmd, x, a).unwrap(),
                words(expected),
                "ENTRYPOINT {entrypoint:?} CMD {cmd:?}, caller {x:?} {a:?}"
            );
        }
    }

    #[test]
    fn one_empty_string_clears_the_entrypoint() {
        let image = ImageConfig {
            entrypoint: words("e"),
            cmd: words("c"),
            ..Default::default()
        };
        let options = ContainerOptions {
            entrypoint: Some(vec![String::new()]),
            ..Default::default()
        };
        assert_eq!(
            Command::resolve(&options, &image).unwrap().split(),
            ("c".to_owned(), vec![])
        );
    }

    #[test]
    fn nothing_to_run_is_refused() {
        let error = runs("", "", None, None).unwrap_err();
        assert_eq!(error.to_string(), "no command specified");
        assert!(runs("e", "", Some(""), None).is_err());
    }

    #[test]
    fn shell_form_is_as_the_image_has_it() {
        let image = ImageConfig {
            cmd: words("/bin/sh -c"),
            ..Default::default()
        };
        let command = Command::resolve(&ContainerOptions::default(), &image).unwrap();
        assert_eq!(
            command.split(),
            ("/bin/sh".to_owned(), vec!["-c".to_owned()])
        );
    }
}
