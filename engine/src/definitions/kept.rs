//! Definitions that a node has read, by the hash that journals name and by name and version. If all together weigh too
//! much, the least recently used are dropped, so that no caller fills the memory of a node by registering.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Workflow;

/// The most text of definitions that a node keeps in memory, in bytes. Read and checked, a definition takes several
/// times its text.
pub(crate) const KEPT: usize = 32 * 1024 * 1024;
/// Time for which "the newest version" may be answered from memory after another node registered a newer
/// one.
const NEWEST_FOR: Duration = Duration::from_secs(1);

/// The name of a workflow and its namespace.
type Name = (String, String);

/// A definition that is kept.
#[derive(Debug)]
struct Entry {
    workflow: Arc<Workflow>,
    bytes: usize,
    used: u64,
    /// Under which names and versions it is found.
    places: Vec<(Name, u32)>,
}

#[derive(Debug, Default)]
struct Versions {
    exact: HashMap<u32, Arc<str>>,
    newest: Option<(u32, Instant)>,
}

/// The definitions.
#[derive(Debug, Default)]
pub(super) struct Kept {
    by_hash: HashMap<Arc<str>, Entry>,
    by_name: HashMap<String, HashMap<String, Versions>>,
    /// The hashes in the order of their last use.
    by_use: BTreeMap<u64, Arc<str>>,
    uses: u64,
    bytes: usize,
}

impl Kept {
    /// Returns the definition with this hash.
    pub(super) fn with_hash(&mut self, hash: &str) -> Option<Arc<Workflow>> {
        let entry = self.by_hash.get_mut(hash)?;
        self.uses += 1;
        let used = std::mem::replace(&mut entry.used, self.uses);
        if let Some(hash) = self.by_use.remove(&used) {
            self.by_use.insert(self.uses, hash);
        }
        Some(Arc::clone(&entry.workflow))
    }

    /// Returns the definition of this name and version; without a version the newest, if that was looked up just now.
    pub(super) fn named(
        &mut self,
        namespace: &str,
        name: &str,
        version: Option<u32>,
    ) -> Option<Arc<Workflow>> {
        let versions = self.by_name.get(namespace)?.get(name)?;
        let version = match version {
            Some(version) => version,
            None => {
                let (version, since) = versions.newest?;
                (since.elapsed() < NEWEST_FOR).then_some(version)?
            }
        };
        let hash = Arc::clone(versions.exact.get(&version)?);
        self.with_hash(&hash)
    }

    /// Keeps a definition whose text has `bytes` bytes.
    pub(super) fn keep(&mut self, workflow: &Arc<Workflow>, bytes: usize) {
        self.keep_within(workflow, bytes, KEPT);
    }

    fn keep_within(&mut self, workflow: &Arc<Workflow>, bytes: usize, most: usize) {
        if self.with_hash(&workflow.hash).is_some() {
            return;
        }
        self.uses += 1;
        let (workflow, used, places) = (Arc::clone(workflow), self.uses, Vec::new());
        let hash = Arc::clone(&workflow.hash);
        self.by_use.insert(used, Arc::clone(&hash));
        self.by_hash.insert(hash, Entry { workflow, bytes, used, places });
        self.bytes += bytes;
        // The one that was just kept stays, whatever it weighs.
        while self.bytes > most && self.by_hash.len() > 1 {
            let Some((_, oldest)) = self.by_use.pop_first() else { return };
            self.forget(&oldest);
        }
    }

    /// Notes that a kept definition is found under this name and version.
    pub(super) fn name(&mut self, namespace: &str, name: &str, version: u32, hash: &str) {
        let Some(entry) = self.by_hash.get_mut(hash) else { return };
        let place = ((namespace.to_owned(), name.to_owned()), version);
        if !entry.places.contains(&place) {
            entry.places.push(place);
        }
        let hash = Arc::clone(&entry.workflow.hash);
        let names = self.by_name.entry(namespace.to_owned()).or_default();
        names.entry(name.to_owned()).or_default().exact.insert(version, hash);
    }

    /// Notes which version of a workflow is the newest at this moment; `None` when that is to be looked up again.
    pub(super) fn newest(&mut self, namespace: &str, name: &str, version: Option<u32>) {
        let versions = self.by_name.get_mut(namespace).and_then(|names| names.get_mut(name));
        if let Some(versions) = versions {
            versions.newest = version.map(|version| (version, Instant::now()));
        }
    }

    fn forget(&mut self, hash: &str) {
        let Some(entry) = self.by_hash.remove(hash) else { return };
        self.bytes -= entry.bytes;
        for ((namespace, name), version) in entry.places {
            let Some(names) = self.by_name.get_mut(&namespace) else { continue };
            if let Some(versions) = names.get_mut(&name) {
                versions.exact.remove(&version);
                if versions.exact.is_empty() {
                    names.remove(&name);
                }
            }
            if names.is_empty() {
                self.by_name.remove(&namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workflow(name: &str) -> Arc<Workflow> {
        let text = format!(
            r#"{{"name":"{name}","version":1,"steps":[{{"id":"a","sleep":{{"for":"1s"}}}}]}}"#
        );
        Arc::new(Workflow::parse(&text).unwrap())
    }

    #[test]
    fn the_definition_that_was_not_used_for_longest_goes_when_all_weigh_too_much() {
        let mut kept = Kept::default();
        let all = ["one", "two", "three"].map(workflow);
        for (one, name) in all.iter().zip(["one", "two", "three"]) {
            kept.keep_within(one, 40, 100);
            kept.name("ns", name, 1, &one.hash);
            kept.newest("ns", name, Some(1));
            assert!(kept.with_hash(&all[0].hash).is_some(), "it is used all the time");
        }
        assert!(kept.named("ns", "two", Some(1)).is_none());
        assert!(kept.named("ns", "two", None).is_none());
        assert!(kept.named("ns", "three", None).is_some());
        assert_eq!((kept.bytes, kept.by_hash.len(), kept.by_use.len()), (80, 2, 2));
        assert_eq!(kept.by_name["ns"].len(), 2);
    }

    #[test]
    fn a_definition_that_weighs_more_than_all_may_is_kept_alone() {
        let mut kept = Kept::default();
        let all = ["one", "two"].map(workflow);
        kept.keep_within(&all[0], 40, 100);
        kept.keep_within(&all[1], 1_000, 100);
        assert!(kept.with_hash(&all[0].hash).is_none());
        assert!(kept.with_hash(&all[1].hash).is_some());
    }
}
