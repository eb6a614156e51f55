//! One store on each engine, and what is put into it.

use std::path::PathBuf;

use clerk_authz::{
    identity::{InstanceName, OrganizationId, Timestamp, UserId},
    mirror::{
        Applied, ClaimId, Effect, EmailAddress, Fact, Membership, Mirror, MirroredMembership,
        MirroredOrganization, OrganizationRecord, Origin, Received, Standing, StoreError, User,
    },
    store::SqlStore,
};

use super::postgres;

/// When tests happen, unless they say otherwise: some time after all versions.
pub const NOW: i64 = 1_900_000_000_000;

pub fn ms(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

/// A database with a store on it.
pub struct Database {
    pub store: SqlStore,
    pub place: Place,
    pub instance: InstanceName,
}

pub enum Place {
    Sqlite {
        file: PathBuf,
        _folder: tempfile::TempDir,
    },
    Postgres {
        url: String,
    },
}

impl Place {
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::Sqlite {
            file: folder.path().join("clerk-authz.db"),
            _folder: folder,
        }
    }

    pub async fn postgres() -> Self {
        Self::Postgres {
            url: postgres::fresh_database().await,
        }
    }

    pub async fn open(&self) -> Result<SqlStore, StoreError> {
        match self {
            Self::Sqlite { file, .. } => SqlStore::sqlite(file).await,
            Self::Postgres { url } => SqlStore::postgres(url).await,
        }
    }

    /// What CLERK_AUTHZ_DATABASE_URL says.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite { file, .. } => format!("sqlite://{}", file.display()),
            Self::Postgres { url } => url.clone(),
        }
    }

    /// The files of a SQLite database; none where there are none that one can read.
    pub fn files(&self) -> Vec<PathBuf> {
        let Self::Sqlite { file, .. } = self else {
            return Vec::new();
        };
        let folder = file.parent().expect("a folder");
        let entries = std::fs::read_dir(folder).expect("it is there");
        entries.map(|it| it.expect("an entry").path()).collect()
    }

    /// Runs a statement as somebody who is not the store.
    pub async fn run(&self, sql: &'static str) {
        use sqlx::Connection;
        match self {
            Self::Sqlite { file, .. } => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
                let mut connection = sqlx::SqliteConnection::connect_with(&options)
                    .await
                    .expect("a connection");
                sqlx::raw_sql(sql)
                    .execute(&mut connection)
                    .await
                    .expect("done");
            }
            Self::Postgres { url } => {
                let mut connection = postgres::beside(url).await;
                sqlx::raw_sql(sql)
                    .execute(&mut connection)
                    .await
                    .expect("done");
            }
        }
    }

    /// The number that a statement answers.
    pub async fn number(&self, sql: &'static str) -> i64 {
        use sqlx::Connection;
        match self {
            Self::Sqlite { file, .. } => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
                let mut connection = sqlx::SqliteConnection::connect_with(&options)
                    .await
                    .expect("a connection");
                sqlx::query_scalar(sql).fetch_one(&mut connection).await
            }
            Self::Postgres { url } => {
                let mut connection = postgres::beside(url).await;
                sqlx::query_scalar(sql).fetch_one(&mut connection).await
            }
        }
        .expect("a number")
    }
}

impl Database {
    pub async fn on(place: Place) -> Self {
        Self {
            store: place.open().await.expect("a store"),
            place,
            instance: "default".parse().expect("a name"),
        }
    }

    pub async fn apply(&self, facts: impl Into<Vec<Fact>>) -> Applied {
        self.try_apply(facts.into(), None)
            .await
            .expect("it is applied")
    }

    pub async fn try_apply(
        &self,
        facts: Vec<Fact>,
        done: Option<ClaimId>,
    ) -> Result<Applied, StoreError> {
        let effect = Effect { facts, done };
        self.store.apply(&self.instance, effect, ms(NOW)).await
    }

    /// The same database through connections of its own, as another replica has it.
    pub async fn replica(&self) -> SqlStore {
        self.place.open().await.expect("a store")
    }
}

/// Writes each test once and runs it on both engines.
macro_rules! on_each_engine {
    ($($(#[$doc:meta])* async fn $name:ident($database:ident: Database) $body:block)*) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    use $crate::support::database::{Database, Place};
                    super::$name(Database::on(Place::sqlite()).await).await;
                }
            )*
        }
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    use $crate::support::database::{Database, Place};
                    super::$name(Database::on(Place::postgres().await).await).await;
                }
            )*
        }
        $($(#[$doc])* async fn $name($database: Database) $body)*
    };
}
pub(crate) use on_each_engine;

pub fn user_id(id: &str) -> UserId {
    id.parse().expect("a user's id")
}

pub fn organization_id(id: &str) -> OrganizationId {
    id.parse().expect("an organization's id")
}

/// A user with a name and one verified address, last changed at `updated_at`.
pub fn user(id: &str, updated_at: i64) -> User {
    User {
        id: user_id(id),
        external_id: Some(format!("ext-{id}").into()),
        username: None,
        first_name: Some("Ada".into()),
        last_name: Some("Lovelace".into()),
        image_url: None,
        emails: vec![EmailAddress {
            address: format!("{id}@Example.com").into(),
            verified: true,
            primary: true,
        }],
        banned: false,
        locked: false,
        deprovisioned: false,
        public_metadata: r#"{"plan":"pro"}"#.into(),
        created_at: ms(1),
        updated_at: ms(updated_at),
        last_sign_in_at: None,
        source: format!(r#"{{"id":"{id}"}}"#).into(),
    }
}

/// The user, with changes.
pub fn user_with(id: &str, updated_at: i64, change: impl FnOnce(&mut User)) -> User {
    let mut user = user(id, updated_at);
    change(&mut user);
    user
}

pub fn organization(id: &str, updated_at: i64) -> MirroredOrganization {
    MirroredOrganization {
        id: organization_id(id),
        slug: Some(format!("slug-{}", &id[4..]).parse().expect("a slug")),
        name: "Acme".into(),
        image_url: None,
        public_metadata: "{}".into(),
        created_at: ms(1),
        updated_at: ms(updated_at),
        source: "{}".into(),
    }
}

pub fn membership(organization: &str, user: &str, updated_at: i64) -> MirroredMembership {
    MirroredMembership {
        membership: Membership {
            organization: OrganizationRecord {
                id: organization_id(organization),
                slug: None,
            },
            user_id: user_id(user),
            role: "org:admin".into(),
            permissions: ["org:invoices:read", "org:sys_memberships:read"]
                .iter()
                .collect(),
            standing: Standing::Good,
            updated_at: ms(updated_at),
        },
        created_at: ms(1),
        source: "{}".into(),
    }
}

pub fn event_user(user: User) -> Fact {
    Fact::User(Box::new(user), Origin::Event)
}

pub fn api_user(user: User, as_of: i64) -> Fact {
    Fact::User(Box::new(user), Origin::Api { as_of: ms(as_of) })
}

pub fn event_organization(organization: MirroredOrganization) -> Fact {
    Fact::Organization(Box::new(organization), Origin::Event)
}

pub fn event_membership(membership: MirroredMembership) -> Fact {
    Fact::Membership(Box::new(membership), Origin::Event)
}

pub fn api_membership(membership: MirroredMembership, as_of: i64) -> Fact {
    Fact::Membership(Box::new(membership), Origin::Api { as_of: ms(as_of) })
}

/// A message about an entity.
pub fn message(id: &str, entity: &str) -> Received {
    Received {
        id: id.parse().expect("an id"),
        event_type: "user.updated".into(),
        entity: Some(entity.into()),
        at: ms(NOW),
        body: Some(b"{\"type\":\"user.updated\"}".to_vec()),
    }
}
