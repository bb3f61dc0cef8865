//! Recipes: the contents of an image and how it starts, written by a person.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use crate::error::{Error, Result, io};

/// What an image holds and how it starts. Keys that are not known are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Recipe {
    /// Another recipe, beside this one or by a relative path: what its image holds is in this one too.
    #[serde(default)]
    pub(crate) include: Option<PathBuf>,
    /// The whole reference, for images that are not named after their recipe.
    #[serde(default)]
    pub(crate) reference: Option<String>,
    /// For people: what it is, in a few words.
    pub(crate) title: String,
    /// For people: what it does.
    pub(crate) description: String,
    pub(crate) licenses: String,
    /// The program and its first arguments.
    #[serde(default)]
    pub(crate) entrypoint: Vec<String>,
    /// The other arguments, which a pod may replace.
    #[serde(default)]
    pub(crate) command: Vec<String>,
    /// `uid:gid`.
    #[serde(default)]
    pub(crate) user: String,
    /// `NAME=value`.
    #[serde(default)]
    pub(crate) environment: Vec<String>,
    /// The package of this workspace that the program is of: its dependencies are listed.
    #[serde(default)]
    pub(crate) cargo_package: Option<String>,
    /// Path in the image → `INPUT/path`, a file of an input with the libraries that it loads.
    #[serde(default)]
    pub(crate) copy: BTreeMap<String, String>,
    /// Programs of the distribution, with the libraries that they load.
    #[serde(default)]
    pub(crate) programs: Vec<String>,
    /// Files of the distribution, as they are.
    #[serde(default)]
    pub(crate) files: Vec<String>,
    /// Path in the image → its text.
    #[serde(default)]
    pub(crate) write: BTreeMap<String, String>,
    /// Path in the image → what the symbolic link says.
    #[serde(default)]
    pub(crate) links: BTreeMap<String, String>,
    /// Directories that are there though nothing is in them → mode.
    #[serde(default)]
    pub(crate) directories: BTreeMap<String, String>,
}

impl Recipe {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut recipe = Self::read_alone(path)?;
        if let Some(include) = &recipe.include {
            let beside = path.parent().unwrap_or(Path::new("")).join(include);
            // One level is all that anybody needs, and cannot go round in circles.
            recipe.take_files(Self::read_alone(&beside)?);
        }
        Ok(recipe)
    }

    fn read_alone(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(io("read", path))?;
        toml::from_str(&text).map_err(|source| Error::Recipe {
            path: path.to_owned(),
            source,
        })
    }

    /// Adds what the other image holds; what this one says of the same path counts.
    fn take_files(&mut self, other: Self) {
        self.programs.extend(other.programs);
        self.files.extend(other.files);
        for (mine, theirs) in [
            (&mut self.copy, other.copy),
            (&mut self.write, other.write),
            (&mut self.links, other.links),
            (&mut self.directories, other.directories),
        ] {
            for (path, what) in theirs {
                mine.entry(path).or_insert(what);
            }
        }
    }
}

/// A directory that recipes call by a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Input {
    name: String,
    directory: PathBuf,
}

impl FromStr for Input {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, directory)) if !name.is_empty() && !directory.is_empty() => Ok(Self {
                name: name.to_owned(),
                directory: PathBuf::from(directory),
            }),
            _ => Err("write NAME=DIR"),
        }
    }
}

/// The file that `INPUT/path` names.
pub(crate) fn locate(inputs: &[Input], text: &str) -> Result<PathBuf> {
    let missing = |input: &str| Error::NoInput {
        input: input.to_owned(),
        path: text.to_owned(),
    };
    let (name, path) = text.split_once('/').ok_or_else(|| missing(text))?;
    let input = inputs.iter().find(|input| input.name == name);
    Ok(input.ok_or_else(|| missing(name))?.directory.join(path))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_misspelt_is_refused() {
        let good = "title='t'\ndescription='d'\nlicenses='MIT'\n";
        toml::from_str::<Recipe>(good).unwrap();
        assert!(toml::from_str::<Recipe>(&format!("{good}entry-point=['/a']")).is_err());
        assert!(toml::from_str::<Recipe>("title='t'").is_err());
        assert!("target".parse::<Input>().is_err());
    }

    #[test]
    fn an_included_recipe_gives_its_files_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let head = "title='t'\ndescription='d'\nlicenses='MIT'\n";
        let write = |name: &str, more: &str| {
            let path = dir.path().join(name);
            let mut file = std::fs::File::create(&path).unwrap();
            file.write_all(format!("{head}{more}").as_bytes()).unwrap();
            path
        };
        write(
            "base.toml",
            "entrypoint=['/base']\nprograms=['busybox']\n[write]\n'/a'='base'\n'/b'='base'\n",
        );
        let path = write("top.toml", "include='base.toml'\n[write]\n'/a'='top'\n");
        let recipe = Recipe::read(&path).unwrap();
        assert_eq!(recipe.programs, ["busybox"]);
        assert!(recipe.entrypoint.is_empty());
        let written: Vec<_> = recipe.write.values().map(String::as_str).collect();
        assert_eq!(written, ["top", "base"]);
        assert!(Recipe::read(&write("lost.toml", "include='no.toml'\n")).is_err());
    }

    #[test]
    fn inputs_are_found_by_name() {
        let inputs = ["a=/x".parse().unwrap(), "b=/y".parse().unwrap()];
        assert_eq!(locate(&inputs, "b/p/q").unwrap(), Path::new("/y/p/q"));
        let error = locate(&inputs, "c/p").unwrap_err().to_string();
        assert!(error.contains("--input c=DIR"), "{error}");
    }
}
