//! The identity providers of an instance, each with its running keyring; replaced by reload.

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    authz::IdentityProvider,
    clerk::{DiscoveredJwksSource, HttpJwksSource, InsecureUrl},
    identity::InstanceName,
    keys::{Clock, JwksSource, Keyring, KeysOf, RefreshSettings, Snapshot, SnapshotStore},
    settings::{Problem, ProviderKeys, ProviderSettings},
};

/// A provider, and what ends its keyring.
#[derive(Clone)]
pub(super) struct KeptProvider {
    settings: ProviderSettings,
    provider: Arc<IdentityProvider>,
    stop: CancellationToken,
}

/// What keyrings are made with.
pub(super) struct Keyrings<'a> {
    pub(super) refresh: RefreshSettings,
    pub(super) snapshots: Option<&'a Arc<dyn SnapshotStore>>,
    pub(super) clock: &'a Clock,
    pub(super) stop: &'a CancellationToken,
}

impl KeptProvider {
    pub(super) fn provider(&self) -> &Arc<IdentityProvider> {
        &self.provider
    }

    fn has_keyring_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.provider.keyring, &other.provider.keyring)
    }

    /// Whether its keys are those, and for the same algorithms.
    fn same_keys(&self, settings: &ProviderSettings) -> bool {
        let (ours, others) = (&self.settings.rules, &settings.rules);
        self.settings.keys == settings.keys
            && ours.name == others.name
            && ours.issuer == others.issuer
            && ours.algorithms == others.algorithms
    }
}

/// The providers of an instance. What stays the same keeps its keys.
pub(super) async fn providers(
    instance: &InstanceName,
    wanted: &[ProviderSettings],
    old: &[KeptProvider],
    with: &Keyrings<'_>,
) -> Result<Vec<KeptProvider>, Problem> {
    let mut kept = Vec::with_capacity(wanted.len());
    for settings in wanted {
        let (keyring, stop) = match old.iter().find(|old| old.same_keys(settings)) {
            Some(old) => (Arc::clone(&old.provider.keyring), old.stop.clone()),
            None => {
                let keyring = keyring(instance, settings, with).await;
                let keyring = keyring.map_err(|error| {
                    let name = &settings.rules.name;
                    Problem::new(
                        "CLERK_AUTHZ_INSTANCES",
                        format!(
                            "provider \"{name}\" of instance \"{instance}\" cannot be used: {error}"
                        ),
                    )
                })?;
                (Arc::new(keyring), with.stop.child_token())
            }
        };
        let rules = settings.rules.clone();
        kept.push(KeptProvider {
            settings: settings.clone(),
            provider: Arc::new(IdentityProvider { rules, keyring }),
            stop,
        });
    }
    Ok(kept)
}

async fn keyring(
    instance: &InstanceName,
    ProviderSettings { rules, keys }: &ProviderSettings,
    with: &Keyrings<'_>,
) -> Result<Keyring, InsecureUrl> {
    let source: Arc<dyn JwksSource> = match keys {
        ProviderKeys::Discovery(url) => {
            Arc::new(DiscoveredJwksSource::new(url.clone(), &rules.issuer)?)
        }
        ProviderKeys::Jwks(url) => Arc::new(HttpJwksSource::new(url.clone(), None)?),
    };
    let snapshot = match with.snapshots {
        Some(store) => {
            let keys_of = KeysOf::provider(instance, &rules.name);
            // Keys of an address that is no longer configured are not believed either, whether or not
            // the new one answers.
            let (ProviderKeys::Discovery(from) | ProviderKeys::Jwks(from)) = keys;
            let whose = format!("{} {from}", rules.issuer);
            Some(Snapshot::open(Arc::clone(store), keys_of, &whose).await)
        }
        None => None,
    };
    let refresh = RefreshSettings {
        algorithms: rules.algorithms,
        ..with.refresh
    };
    let clock = Arc::clone(with.clock);
    Ok(Keyring::refreshed(source, refresh, snapshot, clock))
}

/// Ends the keyrings that are no longer there, and has the new ones run.
pub(super) fn replace(old: &[KeptProvider], new: &[KeptProvider], tasks: &TaskTracker) {
    for gone in old {
        if !new.iter().any(|new| new.has_keyring_of(gone)) {
            gone.stop.cancel();
        }
    }
    for new in new {
        if !old.iter().any(|old| new.has_keyring_of(old)) {
            let keyring = Arc::clone(&new.provider.keyring);
            tasks.spawn(keyring.run(new.stop.clone()));
        }
    }
}
