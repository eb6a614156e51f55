//! The instances of the settings, each with its running keyring; replaced by reload.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info};

use super::{
    inboxes::InboxSet,
    looks::look,
    providers::{self, KeptProvider, Keyrings},
    revocations::RevocationSet,
};
use crate::{
    authz::{Instance, InstanceSerial, Instances, Verifier},
    clerk::{ApiOptions, BackendApi, HttpJwksSource},
    keys::{
        Clock, JwksSource, Keyring, KeysOf, RefreshSettings, Snapshot, SnapshotStore, VerifyingKey,
    },
    mirror::Listing,
    settings::{
        self, Exposure, InstanceSettings, KeySource, KeysSettings, ListenAddr, Problem, Problems,
        Settings,
    },
    sync::Listings,
};

/// How often the instances' file, and the secret keys' files that it names, are read. A thousand
/// instances take a few milliseconds.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Makes instances from settings. One that did not change stays the very same, with its keys and
/// its cached tokens.
pub(super) struct InstanceSet {
    keys: KeysSettings,
    api_timeout: Duration,
    /// What is open to whom at the gRPC port, and where that is.
    exposure: (Exposure, ListenAddr),
    /// Where the last good keys are kept.
    snapshots: Option<Arc<dyn SnapshotStore>>,
    clock: Clock,
    stop: CancellationToken,
    tasks: TaskTracker,
    members: Vec<Member>,
    /// Where messages are taken in, where there is a database.
    inboxes: Option<InboxSet>,
    /// Told which instances there are and how Clerk is asked for them in the background, where there
    /// is a database.
    listings: Option<Arc<Listings>>,
    /// What is known beside what tokens say, where there is a database.
    revocations: Option<RevocationSet>,
    /// In place of every instance's own source.
    source: Option<Arc<dyn JwksSource>>,
}

/// Changes of the instances' file since the start.
#[derive(Debug, Default)]
pub(super) struct InstanceReloads {
    applied: AtomicU64,
    refused: AtomicU64,
}

impl InstanceReloads {
    /// Those that were applied, and that were refused.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.applied.load(Relaxed), self.refused.load(Relaxed))
    }
}

struct Member {
    settings: InstanceSettings,
    instance: Arc<Instance>,
    /// In the background's share of the budget.
    listing: Option<Arc<dyn Listing>>,
    /// In the order of the instance's.
    providers: Vec<KeptProvider>,
    /// Ends its keyring.
    stop: CancellationToken,
}

impl InstanceSet {
    pub(super) fn new(
        settings: &Settings,
        snapshots: Option<Arc<dyn SnapshotStore>>,
        clock: Clock,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            keys: settings.keys.clone(),
            api_timeout: settings.api_timeout,
            exposure: (settings.exposure, settings.grpc_addr.clone()),
            snapshots,
            clock,
            stop,
            tasks,
            members: Vec::new(),
            inboxes: None,
            listings: None,
            revocations: None,
            source: None,
        }
    }

    /// Takes every instance's keys from `source`, and leaves snapshots aside.
    pub(super) fn with_source(mut self, source: Arc<dyn JwksSource>) -> Self {
        self.source = Some(source);
        self.snapshots = None;
        self
    }

    /// Takes in and applies every instance's messages.
    pub(super) fn with_inboxes(mut self, inboxes: InboxSet) -> Self {
        self.inboxes = Some(inboxes);
        self
    }

    /// Says which instances there are whenever that changes.
    pub(super) fn with_listings(mut self, listings: Arc<Listings>) -> Self {
        self.listings = Some(listings);
        self
    }

    /// Holds what is known beside tokens against every instance's tokens.
    pub(super) fn with_revocations(mut self, revocations: RevocationSet) -> Self {
        self.revocations = Some(revocations);
        self
    }

    /// Makes the set what `wanted` says; when it fails nothing has changed.
    pub(super) async fn apply(
        &mut self,
        wanted: &[InstanceSettings],
    ) -> Result<Instances, Problems> {
        let mut members = Vec::with_capacity(wanted.len());
        let mut problems = Vec::new();
        if let Some(revocations) = &mut self.revocations {
            problems.extend(revocations.load(wanted).await.err());
        }
        for settings in wanted {
            let kept = self
                .members
                .iter()
                .position(|member| member.settings.same_as(settings));
            match kept {
                Some(index) => members.push(self.members[index].share()),
                None => match self.member(settings).await {
                    Ok(member) => members.push(member),
                    Err(problem) => problems.push(problem),
                },
            }
        }
        let prepared = self.inboxes.as_ref().map(|inboxes| inboxes.prepare(wanted));
        let inboxes = prepared.transpose().unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let all = members
            .iter()
            .map(|member| Arc::clone(&member.instance))
            .collect();
        let instances = match (Instances::new(all), problems.is_empty()) {
            (Ok(instances), true) => instances,
            (Ok(_), false) => return Err(Problems::new(problems)),
            (Err(duplicate), _) => {
                problems.push(Problem::new("CLERK_AUTHZ_INSTANCES", duplicate.to_string()));
                return Err(Problems::new(problems));
            }
        };
        for old in &self.members {
            if !members.iter().any(|member| member.is(old)) {
                info!(instance = %old.instance.name, "instance removed or replaced");
            }
            if !members.iter().any(|member| member.has_keyring_of(old)) {
                old.stop.cancel();
            }
        }
        for new in &members {
            if !self.members.iter().any(|old| new.has_keyring_of(old)) {
                let keyring = Arc::clone(&new.instance.keyring);
                self.tasks.spawn(keyring.run(new.stop.clone()));
            }
            if !self.members.iter().any(|old| new.is(old)) {
                info!(instance = %new.instance.name, issuer = %new.instance.issuer, "instance added");
            }
        }
        let all_providers = |members: &[Member]| {
            let providers = members.iter().flat_map(|member| &member.providers);
            providers.cloned().collect::<Vec<_>>()
        };
        let (old, new) = (all_providers(&self.members), all_providers(&members));
        providers::replace(&old, &new, &self.tasks);
        if let (Some(inboxes), Some(prepared)) = (&mut self.inboxes, inboxes) {
            inboxes.put(prepared);
        }
        if let Some(listings) = &self.listings {
            let all = members.iter();
            listings.set(
                all.map(|member| (member.instance.name.clone(), member.listing.clone()))
                    .collect(),
            );
        }
        if let Some(revocations) = &mut self.revocations {
            revocations.keep(wanted);
        }
        self.members = members;
        Ok(instances)
    }

    /// A new instance. What it has in common with the one before it takes over: keys that are there
    /// stay there, what was spent of a budget stays spent, what is known of memberships stays known.
    async fn member(&self, settings: &InstanceSettings) -> Result<Member, Problem> {
        let with_same = |same: fn(&InstanceSettings, &InstanceSettings) -> bool| {
            let mut members = self.members.iter();
            members.find(|member| same(&member.settings, settings))
        };
        let (keyring, stop) = match with_same(InstanceSettings::same_keys) {
            Some(old) => (Arc::clone(&old.instance.keyring), old.stop.clone()),
            None => (
                Arc::new(self.keyring(settings).await?),
                self.stop.child_token(),
            ),
        };
        let before = with_same(|old, new| old.name == new.name);
        let providers = providers::providers(
            &settings.name,
            &settings.providers,
            before.map_or(&[], |member| &member.providers),
            &Keyrings {
                refresh: self.refresh(),
                snapshots: self.snapshots.as_ref(),
                clock: &self.clock,
                stop: &self.stop,
            },
        )
        .await?;
        let (serial, directory, user_directory, sign_ins, listing) =
            match with_same(InstanceSettings::same_api) {
                Some(Member {
                    instance, listing, ..
                }) => (
                    instance.serial,
                    instance.directory.clone(),
                    instance.user_directory.clone(),
                    instance.sign_ins.clone(),
                    listing.clone(),
                ),
                None => {
                    let api = backend_api(settings, self.api_timeout, Arc::clone(&self.clock))?;
                    (
                        InstanceSerial::next(),
                        api.clone().map(|api| api as _),
                        api.clone().map(|api| api as _),
                        api.clone().map(|api| api as _),
                        api.map(|api| Arc::new(api.in_background()) as _),
                    )
                }
            };
        let instance = Instance {
            serial,
            name: settings.name.clone(),
            issuer: settings.issuer.clone(),
            publishable_key: settings.publishable_key.clone(),
            authorized_parties: shared(&settings.authorized_parties),
            audiences: shared(&settings.audiences),
            keyring,
            directory,
            user_directory,
            sign_ins,
            providers: providers
                .iter()
                .map(|kept| Arc::clone(kept.provider()))
                .collect(),
            revocations: self
                .revocations
                .as_ref()
                .and_then(|revocations| revocations.of(&settings.name)),
            has_webhooks: !settings.webhook_secrets.is_empty(),
        };
        Ok(Member {
            settings: settings.clone(),
            instance: Arc::new(instance),
            listing,
            providers,
            stop,
        })
    }

    async fn keyring(&self, settings: &InstanceSettings) -> Result<Keyring, Problem> {
        let name = &settings.name;
        if let Some(source) = &self.source {
            let source = Arc::clone(source);
            return Ok(Keyring::refreshed(
                source,
                self.refresh(),
                None,
                Arc::clone(&self.clock),
            ));
        }
        match &settings.keys {
            KeySource::Pinned(pem) => {
                let key = VerifyingKey::from_pem(pem).map_err(|error| {
                    Problem::new(
                        "CLERK_JWT_KEY",
                        format!("of instance \"{name}\" cannot be used: {error}"),
                    )
                })?;
                Ok(Keyring::pinned(key))
            }
            KeySource::Jwks { url, authorization } => {
                let source =
                    HttpJwksSource::new(url.clone(), authorization.clone()).map_err(|error| {
                        Problem::new(
                            "CLERK_AUTHZ_JWKS_URL",
                            format!("of instance \"{name}\" cannot be used: {error}"),
                        )
                    })?;
                let snapshot = match &self.snapshots {
                    Some(store) => {
                        let (store, keys_of) = (Arc::clone(store), KeysOf::instance(name));
                        Some(Snapshot::open(store, keys_of, settings.issuer.as_str()).await)
                    }
                    None => None,
                };
                Ok(Keyring::refreshed(
                    Arc::new(source),
                    self.refresh(),
                    snapshot,
                    Arc::clone(&self.clock),
                ))
            }
        }
    }

    fn refresh(&self) -> RefreshSettings {
        RefreshSettings {
            refresh: self.keys.refresh,
            cooldown: self.keys.cooldown,
            max_staleness: self.keys.max_staleness,
            ..RefreshSettings::default()
        }
    }

    /// Webhooks need a database, and a secret key must not open what is others'; at the start the settings have seen to it.
    fn lacking(&self, wanted: &[InstanceSettings]) -> Option<Problems> {
        let mut problems = match self.inboxes {
            Some(_) => Vec::new(),
            None => settings::lacking_database(wanted),
        };
        let (exposure, grpc_addr) = &self.exposure;
        problems.extend(exposure.problem(grpc_addr, wanted));
        (!problems.is_empty()).then(|| Problems::new(problems))
    }

    /// Whether nothing differs, secrets included.
    fn is(&self, wanted: &[InstanceSettings]) -> bool {
        let members = &self.members;
        members.len() == wanted.len()
            && members
                .iter()
                .zip(wanted)
                .all(|(member, wanted)| member.settings.same_as(wanted))
    }

    /// Reads the file until the stop, and applies it when what it says has changed, be it a secret in
    /// a file that it names. What is wrong changes nothing, is said once, and is counted.
    pub(super) async fn reload_on_change(
        mut self,
        file: PathBuf,
        verifier: Arc<Verifier>,
        reloads: Arc<InstanceReloads>,
    ) {
        let mut said = None;
        loop {
            let read = {
                let file = file.clone();
                move || settings::load_instances(&file)
            };
            let Some(read) = look(&self.stop, LOOK_INTERVAL, read).await else {
                return;
            };
            let applied = match read {
                Ok(wanted) if self.is(&wanted) => {
                    said = None;
                    continue;
                }
                Ok(wanted) => match self.lacking(&wanted) {
                    Some(problems) => Err(problems),
                    None => self.apply(&wanted).await,
                },
                Err(problems) => Err(problems),
            };
            match applied {
                Ok(instances) => {
                    // One that was replaced for its new secret goes on with keys.
                    super::first_keys(&instances, &self.clock).await;
                    verifier.set_instances(instances);
                    said = None;
                    reloads.applied.fetch_add(1, Relaxed);
                    info!(file = %file.display(), "instances reloaded");
                }
                Err(problems) if said.as_ref() != Some(&problems) => {
                    error!(
                        file = %file.display(), %problems,
                        "the instances' file is wrong; the instances stay as they were"
                    );
                    reloads.refused.fetch_add(1, Relaxed);
                    said = Some(problems);
                }
                Err(_) => {}
            }
        }
    }
}

/// An instance's Backend API; `None` without a secret key.
pub(crate) fn backend_api(
    settings: &InstanceSettings,
    timeout: Duration,
    clock: Clock,
) -> Result<Option<Arc<BackendApi>>, Problem> {
    let Some(api) = settings.api.clone() else {
        return Ok(None);
    };
    let options = ApiOptions {
        instance: settings.name.clone(),
        url: api.url,
        secret_key: api.secret_key,
        budget: api.budget,
        timeout,
    };
    match BackendApi::new(options, clock) {
        Ok(api) => Ok(Some(Arc::new(api))),
        Err(error) => Err(Problem::new(
            "CLERK_API_URL",
            format!("of instance \"{}\" cannot be used: {error}", settings.name),
        )),
    }
}

impl Member {
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.instance, &other.instance)
    }

    fn has_keyring_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.instance.keyring, &other.instance.keyring)
    }

    fn share(&self) -> Self {
        Self {
            settings: self.settings.clone(),
            instance: Arc::clone(&self.instance),
            listing: self.listing.clone(),
            providers: self.providers.clone(),
            stop: self.stop.clone(),
        }
    }
}

fn shared(texts: &[String]) -> Vec<Arc<str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::settings::{EnvironmentVariables, SettingsArgs};

    /// What was fine at the start, for want of anything to tell, is not opened by a reload.
    #[test]
    fn a_secret_key_that_would_open_others_data_to_the_network_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        fs::write(&secret, "sk_test_abcdefgh").expect("written");
        let file = folder.path().join("instances.toml");
        let plain = "[[instance]]\nname = \"a\"\nissuer = \"https://clerk.example.com\"\n";
        let with_secret = format!("{plain}secret_key_file = {secret:?}\n");
        let callers = folder.path().join("callers.toml");
        fs::write(&callers, "[anyone]\nrpcs = []\n").expect("written");
        let lacking = |addr: &str, callers: &str| {
            fs::write(&file, plain).expect("written");
            let environment: EnvironmentVariables = [
                ("CLERK_AUTHZ_INSTANCES", file.to_str().expect("text")),
                ("CLERK_AUTHZ_GRPC_ADDR", addr),
                ("CLERK_AUTHZ_CALLERS", callers),
            ]
            .map(|(name, value)| (name.to_owned(), value.into()))
            .into();
            let settings = Settings::load(&SettingsArgs::default(), &environment);
            let settings = settings.expect("good settings");
            settings.check_exposure().expect("nothing to tell yet");
            let set = InstanceSet::new(
                &settings,
                None,
                crate::server::system_clock(),
                CancellationToken::new(),
                TaskTracker::new(),
            );
            fs::write(&file, &with_secret).expect("written");
            set.lacking(&settings::load_instances(&file).expect("good"))
        };

        let said = lacking("0.0.0.0:50051", "").expect("refused").to_string();
        assert!(said.contains("CheckOrgPermission of any user_id"), "{said}");
        assert_eq!(lacking("127.0.0.1:50051", ""), None);
        let callers = callers.to_str().expect("text");
        assert_eq!(lacking("0.0.0.0:50051", callers), None);
    }
}
