//! The handshake: a browser comes with what it has, and goes back with cookies that are as they should
//! be. And a page on which a browser signs in as whoever lives here.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Form, Router,
    extract::{Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    emulator::{
        Instance, Kind, TokenSpec,
        api::error,
        directory::Session,
        ids::{new_id, random_id},
    },
    identity::Environment,
};

/// Browsers and nonces that are known; the oldest in the order of their names goes.
const MOST: usize = 10_000;

/// What a browser is known by at the Frontend API, and what waits for the Backend API.
#[derive(Default)]
pub(in crate::emulator) struct Handshakes(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The session of a browser, by what names the browser.
    browsers: BTreeMap<String, String>,
    /// Values of `set-cookie`, by nonce; each is fetched once.
    nonces: BTreeMap<String, Vec<String>>,
}

impl Handshakes {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits under the nonce, and waits no longer.
    pub(in crate::emulator) fn take(&self, nonce: &str) -> Option<Vec<String>> {
        self.lock().nonces.remove(nonce)
    }

    fn keep(&self, directives: Vec<String>) -> String {
        let nonce = random_id();
        let mut known = self.lock();
        if known.nonces.len() >= MOST {
            known.nonces.pop_first();
        }
        known.nonces.insert(nonce.clone(), directives);
        nonce
    }

    fn session_of(&self, browser: &str) -> Option<String> {
        self.lock().browsers.get(browser).cloned()
    }

    fn sign_in(&self, browser: &str, session: &str) {
        let mut known = self.lock();
        if known.browsers.len() >= MOST {
            known.browsers.pop_first();
        }
        known
            .browsers
            .insert(browser.to_owned(), session.to_owned());
    }
}

pub(super) fn router() -> Router<Arc<Instance>> {
    Router::new()
        .route("/v1/client/handshake", get(handshake))
        .route("/sign-in", get(sign_in_page).post(sign_in))
}

#[derive(Deserialize)]
struct HandshakeQuery {
    redirect_url: Option<String>,
    #[serde(default)]
    suffixed_cookies: bool,
    format: Option<String>,
    __session: Option<String>,
    __clerk_db_jwt: Option<String>,
}

fn refused(message: &str) -> Response {
    error(
        StatusCode::UNPROCESSABLE_ENTITY,
        "form_param_invalid",
        message,
    )
}

/// An address in a browser, without a name and a password.
fn page(text: Option<&str>) -> Option<Url> {
    let url = Url::parse(text?).ok()?;
    let is_page = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none();
    is_page.then_some(url)
}

async fn handshake(
    State(instance): State<Arc<Instance>>,
    query: Result<Query<HandshakeQuery>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let Ok(Query(query)) = query else {
        return refused("the parameters cannot be read");
    };
    let Some(mut url) = page(query.redirect_url.as_deref()) else {
        return refused("redirect_url is no address of a page");
    };
    let as_nonce = match query.format.as_deref() {
        Some("nonce") => true,
        None | Some("token") => false,
        Some(_) => return refused("format is neither nonce nor token"),
    };
    let environment = instance.publishable_key.environment();
    let is_development = environment == Environment::Development;
    let session = session(&instance, &query, &headers);
    let dev_browser = is_development.then(|| {
        let known = query.__clerk_db_jwt.clone();
        known.unwrap_or_else(|| new_id("dvb_"))
    });
    if let (Some(dev_browser), Some(session)) = (&dev_browser, &session) {
        instance.handshakes.sign_in(dev_browser, &session.id);
    }
    let origin = url.origin().ascii_serialization();
    let directives = directives(
        &instance,
        session.as_ref(),
        &origin,
        query.suffixed_cookies,
        dev_browser.as_deref(),
    );
    let directives = match directives {
        Ok(directives) => directives,
        Err(message) => return refused(&message),
    };
    let (name, value) = if as_nonce {
        (
            "__clerk_handshake_nonce",
            instance.handshakes.keep(directives),
        )
    } else {
        let spec = TokenSpec::of(Kind::Handshake).with_claim("handshake", json!(directives));
        match instance.mint(&spec) {
            Ok(token) => ("__clerk_handshake", token),
            Err(error) => return refused(&error.to_string()),
        }
    };
    // In development it goes by the address, since its cookies are of another site.
    let cookie = match environment {
        Environment::Development => {
            url.query_pairs_mut().append_pair(name, &value);
            None
        }
        Environment::Production => Some(format!("{name}={value}; Path=/; Max-Age=60; HttpOnly")),
    };
    redirect(
        StatusCode::TEMPORARY_REDIRECT,
        url.as_str(),
        cookie.as_slice(),
    )
}

/// Whose session the browser has here: by its own cookie, by what names it in development, or by the token
/// that it brings, if that is of a session that still lives.
fn session(instance: &Instance, query: &HandshakeQuery, headers: &HeaderMap) -> Option<Session> {
    let browser = cookie(headers, "__client").or_else(|| query.__clerk_db_jwt.clone());
    let known = browser.and_then(|browser| instance.handshakes.session_of(&browser));
    let id = known.or_else(|| {
        let payload = query.__session.as_deref()?.split('.').nth(1)?;
        let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        Some(payload.get("sid")?.as_str()?.to_owned())
    })?;
    let directory = instance.directory();
    let session = directory.session(&id)?;
    let now = directory.now();
    session.status_at(now).is_live().then_some(session)
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers.get_all(header::COOKIE).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';'));
    let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    let found = pairs.find(|(known, _)| *known == name);
    found.map(|(_, value)| value.to_owned())
}

/// The cookies that the browser is to have on the page's site.
fn directives(
    instance: &Instance,
    session: Option<&Session>,
    origin: &str,
    suffixed: bool,
    dev_browser: Option<&str>,
) -> Result<Vec<String>, String> {
    const KEPT: &str = "Path=/; Max-Age=315360000; SameSite=Lax";
    const GONE: &str = "Path=/; Max-Age=0; SameSite=Lax";
    let (token, changed_at) = match session {
        Some(session) => {
            let spec = TokenSpec {
                organization: session.organization.clone(),
                session: Some(session.id.clone()),
                authorized_party: Some(origin.to_owned()),
                ..TokenSpec::session(&session.user)
            };
            let token = instance.mint(&spec).map_err(|error| error.to_string())?;
            (token, (instance.clock)().unix_seconds())
        }
        None => (String::new(), 0),
    };
    let kept = if session.is_some() { KEPT } else { GONE };
    let suffix = format!("_{}", instance.publishable_key.cookie_suffix());
    let suffixes: &[&str] = if suffixed { &["", &suffix] } else { &[""] };
    let mut all = Vec::new();
    for suffix in suffixes {
        all.push(format!("__client_uat{suffix}={changed_at}; {KEPT}"));
        all.push(format!("__session{suffix}={token}; {kept}"));
        if let Some(dev_browser) = dev_browser {
            all.push(format!("__clerk_db_jwt{suffix}={dev_browser}; {KEPT}"));
        }
    }
    if dev_browser.is_none() {
        all.push(format!("__clerk_handshake_nonce=; {GONE}"));
        all.push(format!("__clerk_handshake=; {GONE}"));
    }
    Ok(all)
}

fn redirect(status: StatusCode, to: &str, cookies: &[String]) -> Response {
    let Ok(location) = HeaderValue::from_str(to) else {
        return refused("redirect_url cannot stand in a header");
    };
    let mut response = (
        status,
        [
            (header::LOCATION, location),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ],
    )
        .into_response();
    let cookies = cookies
        .iter()
        .filter_map(|it| HeaderValue::from_str(it).ok());
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

#[derive(Deserialize)]
struct SignIn {
    user: Option<String>,
    redirect_url: Option<String>,
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' | '<' | '>' | '"' | '\'' => {
                // Writing to a string does not fail.
                let _ = write!(safe, "&#{};", u32::from(letter));
            }
            _ => safe.push(letter),
        }
    }
    safe
}

/// Who lives here, each with a button.
async fn sign_in_page(
    State(instance): State<Arc<Instance>>,
    Query(query): Query<SignIn>,
) -> Html<String> {
    let (users, _) = instance.directory().as_seed();
    let to = escaped(query.redirect_url.as_deref().unwrap_or_default());
    let mut buttons = String::new();
    for user in users {
        let _ = writeln!(
            buttons,
            "<p><button name=\"user\" value=\"{0}\" id=\"{0}\">{0}, {1}</button></p>",
            escaped(&user.id),
            escaped(&user.email)
        );
    }
    Html(format!(
        "<!doctype html>\n<title>The offline Clerk</title>\n<h1>Sign in</h1>\n\
         <form method=\"post\" action=\"/sign-in\">\n\
         <input type=\"hidden\" name=\"redirect_url\" value=\"{to}\">\n{buttons}</form>\n"
    ))
}

/// Signs the browser in here, and sends it back as Clerk's sign-in page does: of a production instance
/// with the cookie that says that somebody signed in, of a development instance with what names the
/// browser in the address.
async fn sign_in(State(instance): State<Arc<Instance>>, Form(form): Form<SignIn>) -> Response {
    let user = form.user.unwrap_or_default();
    let session = match instance.directory().create_session(&user, None) {
        Ok(session) => session,
        Err(refusal) => return refused(&refusal.to_string()),
    };
    let browser = new_id("dvb_");
    instance.handshakes.sign_in(&browser, &session.id);
    let client = format!("__client={browser}; Path=/v1/client; HttpOnly; SameSite=Lax");
    let Some(mut url) = page(form.redirect_url.as_deref()) else {
        let text = format!("{user} is signed in here; give a redirect_url to go somewhere\n");
        return ([(header::SET_COOKIE, client)], text).into_response();
    };
    let mut cookies = vec![client];
    match instance.publishable_key.environment() {
        Environment::Development => {
            url.query_pairs_mut()
                .append_pair("__clerk_db_jwt", &browser);
        }
        Environment::Production => {
            let now = (instance.clock)().unix_seconds();
            cookies.push(format!("__client_uat={now}; Path=/; SameSite=Lax"));
        }
    }
    redirect(StatusCode::SEE_OTHER, url.as_str(), &cookies)
}
