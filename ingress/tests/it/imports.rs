//! No file of `ingress/src` imports one that imports it, whatever is between them: the code can be read from the bottom
//! to the top.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Files by the path of their module, and what each imports.
type Imports = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![path],
        })
        .collect()
}

/// The module that a file is; tests and the crate's root are none.
fn module(file: &Path) -> Option<Vec<String>> {
    let path = file.with_extension("");
    let mut module: Vec<String> = path
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .collect();
    if module.last().is_some_and(|name| name == "mod") {
        module.pop();
    }
    match module.last()?.as_str() {
        "lib" | "main" | "tests" => None,
        _ => Some(module),
    }
}

/// The lines without comments and without what is for tests only.
fn code(text: &str) -> String {
    let (code, _) = text
        .split_once("#[cfg(test)]\nmod tests")
        .unwrap_or((text, ""));
    let lines = code.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.starts_with("//"));
    lines.map(|line| format!("\n{line}")).collect()
}

/// All paths that a tree of imports names, such as `a::{b, c::{self, d}}`.
fn paths(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, inner)) = tree.split_once('{') else {
        return vec![tree.to_owned()];
    };
    let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
    let mut depth = 0;
    let parts = inner.split(|one| {
        depth += i32::from(one == '{') - i32::from(one == '}');
        one == ',' && depth == 0
    });
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts
        .flat_map(paths)
        .map(|path| format!("{}{path}", head.trim()))
        .collect()
}

/// The longest module that a path leads to, seen from `from`.
fn target(path: &str, from: &[String], known: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let names = path.split([':', ' ', '\n']).filter(|name| !name.is_empty());
    let mut at = from.to_vec();
    for (position, name) in names.enumerate() {
        match (position, name) {
            (0, "crate") => at.clear(),
            (_, "super") => drop(at.pop()),
            (_, "self") => {}
            (_, name) => at.push(name.to_owned()),
        }
    }
    (1..=at.len())
        .rev()
        .find_map(|length| at.get(..length).filter(|part| known.contains(*part)))
        .filter(|found| *found != from)
        .map(<[String]>::to_vec)
}

fn imports(root: &Path) -> Imports {
    let found = files(root).into_iter().filter_map(|file| {
        let module = module(file.strip_prefix(root).unwrap())?;
        Some((module, code(&fs::read_to_string(file).unwrap())))
    });
    let found: BTreeMap<_, _> = found.collect();
    let known: BTreeSet<_> = found.keys().cloned().collect();
    let targets = |(module, code): (&Vec<String>, &String)| {
        let declared = code.replace("\npub use ", "\nuse ");
        let declared = declared.split("\nuse ").skip(1);
        let declared = declared.filter_map(|rest| rest.split_once(';'));
        let declared = declared.flat_map(|(tree, _)| paths(tree));
        let named = ["crate::", "super::"].into_iter().flat_map(|start| {
            let ends = |one: char| !one.is_alphanumeric() && one != '_' && one != ':';
            let rests = code.split(start).skip(1);
            rests.map(move |rest| format!("{start}{}", rest.split(ends).next().unwrap()))
        });
        let below = known.iter().filter(|other| {
            let child = other.strip_prefix(module.as_slice());
            matches!(child, Some([name]) if code.contains(&format!("{name}::")))
        });
        // Of a tree only what is in it counts.
        let all = declared.chain(named).filter(|path| !path.ends_with(':'));
        let all = all.filter_map(|path| target(&path, module, &known));
        let all = all.chain(below.cloned()).collect();
        (module.clone(), all)
    };
    found.iter().map(targets).collect()
}

/// What can be reached from a module.
fn reached(imports: &Imports, from: &[String]) -> BTreeSet<Vec<String>> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_vec()]);
    while let Some(module) = next.pop() {
        let fresh = imports[&module].difference(&seen).cloned();
        next.extend(fresh.collect::<Vec<_>>());
        seen.extend(imports[&module].clone());
    }
    seen
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let imports = imports(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(imports.len() > 50, "{imports:?}");
    let handlers = ["api", "v2024_10", "executions"].map(str::to_owned);
    assert!(reached(&imports, &["server".to_owned()]).contains(&handlers[..]));
    let circles = imports
        .keys()
        .filter(|module| reached(&imports, module).contains(*module));
    let circles: Vec<_> = circles.map(|module| module.join("::")).collect();
    assert!(circles.is_empty(), "{circles:?}");
}
