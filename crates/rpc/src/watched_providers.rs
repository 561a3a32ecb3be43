//! What a watch tells of the health of providers, put together from events of one node after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_ledger::{ProviderState, ProviderView};

use crate::budget::ProviderHealth;
use crate::convert::ConvertError;

/// Circuits by backend, then by model; the empty model is the whole backend.
pub type Providers = Arc<BTreeMap<String, BTreeMap<String, ProviderView>>>;

/// One of them; `None`: nothing is known, which is as good as closed.
pub fn circuit<'a>(
    providers: &'a BTreeMap<String, BTreeMap<String, ProviderView>>,
    backend: &str,
    model: &str,
) -> Option<&'a ProviderView> {
    providers.get(backend)?.get(model)
}

/// Circuits that one stream has named so far: what it does not name by the time it is up to date is gone.
#[derive(Debug, Default)]
pub(crate) struct Named(Option<BTreeSet<(String, String)>>);

impl Named {
    pub fn of_a_new_stream() -> Self {
        Self(Some(BTreeSet::new()))
    }

    /// Takes one event up. False if it is older than what is known: a node may lag behind the one before.
    pub fn take(&mut self, health: ProviderHealth, known: &mut Providers) -> Result<bool, ConvertError> {
        let (backend, model) = (health.backend.clone(), health.model.clone());
        if let Some(named) = &mut self.0 {
            named.insert((backend.clone(), model.clone()));
        }
        let newer = circuit(known, &backend, &model).is_none_or(|known| known.revision < health.revision);
        if health.forgotten {
            if newer {
                remove(known, &backend, &model);
            }
            return Ok(newer);
        }
        let view = ProviderView::try_from(health)?;
        if newer {
            Arc::make_mut(known).entry(backend).or_default().insert(model, view);
        }
        Ok(newer)
    }

    /// The stream has told its present state. Only closed ones go: a node that lags behind may not know of trouble yet.
    pub fn up_to_date(&mut self, known: &mut Providers) -> bool {
        let Some(named) = self.0.take() else { return false };
        let views = known.values().flat_map(BTreeMap::values);
        let gone: Vec<_> = views
            .filter(|view| view.state == ProviderState::Closed && view.drained_since.is_none())
            .map(|view| (view.backend.clone(), view.model.clone()))
            .filter(|names| !named.contains(names))
            .collect();
        for (backend, model) in &gone {
            remove(known, backend, model);
        }
        !gone.is_empty()
    }
}

fn remove(known: &mut Providers, backend: &str, model: &str) {
    let known = Arc::make_mut(known);
    if let Some(models) = known.get_mut(backend) {
        models.remove(model);
        if models.is_empty() {
            known.remove(backend);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ProviderState as WireState;

    fn health(model: &str, revision: u64, state: WireState) -> ProviderHealth {
        ProviderHealth {
            backend: "b".to_owned(),
            model: model.to_owned(),
            revision,
            state: state.into(),
            ..ProviderHealth::default()
        }
    }

    #[test]
    fn older_news_are_not_taken_and_what_is_gone_goes() {
        let (mut known, mut named) = (Providers::default(), Named::of_a_new_stream());
        for (model, revision) in [("m", 5), ("old", 2), ("open", 3)] {
            let state = if model == "open" { WireState::Open } else { WireState::Closed };
            assert!(named.take(health(model, revision, state), &mut known).unwrap());
        }
        assert!(!named.take(health("m", 4, WireState::Open), &mut known).unwrap(), "it is older");
        assert_eq!(circuit(&known, "b", "m").unwrap().state, ProviderState::Closed);
        assert!(!named.up_to_date(&mut known), "all were named");
        let mut named = Named::of_a_new_stream();
        named.take(health("m", 6, WireState::Open), &mut known).unwrap();
        assert!(named.up_to_date(&mut known));
        assert!(circuit(&known, "b", "old").is_none(), "the other node no longer has it");
        assert_eq!(circuit(&known, "b", "open").unwrap().state, ProviderState::Open, "trouble is kept");
        let forgotten = ProviderHealth { forgotten: true, ..health("m", 7, WireState::Unspecified) };
        assert!(named.take(forgotten, &mut known).unwrap());
        assert!(circuit(&known, "b", "m").is_none());
        assert!(named.take(health("m", 8, WireState::Unspecified), &mut known).is_err());
    }
}
