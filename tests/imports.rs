// SPDX-License-Identifier: MPL-2.0

//! Modules do not import each other in circles. Only paths between siblings count, at every level of the module tree: a
//! child may use its parent's items. Unit tests are exempt.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

type Module = Vec<String>;

/// The modules below `folder`, with their code without comments and unit tests.
fn modules(folder: &Path, module: &Module, found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_stem().unwrap().to_str().unwrap().to_owned();
        let below = |name: &str| module.iter().cloned().chain([name.to_owned()]).collect::<Module>();
        if entry.is_dir() {
            modules(&entry, &below(&name), found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") && name != "tests" {
            let text = fs::read_to_string(&entry).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().lines();
            let code = code.map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join(" ");
            let is_parent = ["mod", "lib", "main"].contains(&name.as_str());
            found.insert(if is_parent { module.clone() } else { below(&name) }, code);
        }
    }
}

/// The paths of a `use` tree such as `a::{b, c::{d, e}}`.
fn expand(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let (mut paths, mut depth, mut start) = (Vec::new(), 0, 0);
    for (index, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                paths.extend(expand(&inner[start..index]).iter().map(|path| format!("{prefix}{path}")));
                start = index + 1;
            }
            _ => (),
        }
    }
    paths
}

/// All paths in code that begin with `crate` or `super`.
fn paths(code: &str) -> Vec<String> {
    let compact = |text: &str| text.split_whitespace().collect::<String>();
    let starts = ["crate::", "super::", "self::"];
    let uses = code.split("use ").skip(1).map(|tree| compact(tree.split(';').next().unwrap()));
    let mut paths: Vec<String> = uses
        .filter(|tree| starts.iter().any(|start| tree.starts_with(start)))
        .flat_map(|tree| expand(&tree))
        .collect();
    for start in &starts[..2] {
        paths.extend(code.match_indices(start).map(|(index, _)| {
            let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            code[index..].split(|c| !is_path(c)).next().unwrap().to_owned()
        }));
    }
    paths
}

/// Imports between siblings: parent, importing child, imported child.
fn edges(modules: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> {
    let mut edges = BTreeMap::<_, BTreeMap<_, BTreeSet<_>>>::new();
    for (module, code) in modules {
        for path in paths(code) {
            let mut target = module.clone();
            for part in path.split("::") {
                match part {
                    "crate" => target.clear(),
                    "super" => drop(target.pop()),
                    "self" | "" => (),
                    part => target.push(part.to_owned()),
                }
            }
            while !modules.contains_key(&target) {
                target.pop();
            }
            let common = target.iter().zip(module).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (module.get(common), target.get(common)) {
                let level = edges.entry(target[..common].to_vec()).or_default();
                level.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    edges
}

/// The modules that can be reached from `start`.
fn reachable<'a>(graph: &'a BTreeMap<String, BTreeSet<String>>, start: &'a str) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(next) = open.pop() {
        open.extend(graph.get(next).into_iter().flatten().map(String::as_str).filter(|to| found.insert(*to)));
    }
    found
}

fn circles(modules: &BTreeMap<Module, String>) -> Vec<String> {
    let mut circles = Vec::new();
    for (level, graph) in edges(modules) {
        let in_circle = graph.keys().filter(|module| reachable(&graph, module).contains(module.as_str()));
        circles.extend(in_circle.map(|module| format!("{}::{module}", level.join("::"))));
    }
    circles
}

#[test]
fn modules_do_not_import_each_other_in_circles() {
    for folder in ["src", "training/src"] {
        let mut found = BTreeMap::new();
        modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &Module::new(), &mut found);
        assert!(found.len() > 40, "{folder}: {} modules", found.len());
        assert_eq!(circles(&found), [""; 0], "{folder}");
    }
}

#[test]
fn circles_are_found() {
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let modules = [
        (module("a::one"), "use super::two::{Two, other::{X, Y}};"),
        (module("a::two"), "fn f() { crate::a::one::g() }"),
        (module("a"), "mod one; mod two; use self::one::One;"),
        (module("b"), "use crate::a::one::One;"),
        (Module::new(), "mod a; mod b;"),
    ];
    let modules = modules.into_iter().map(|(path, code)| (path, code.to_owned())).collect();
    assert_eq!(circles(&modules), ["a::one", "a::two"]);
}
