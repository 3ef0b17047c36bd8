//! A real Chromium, driven over WebDriver. Where it is not installed the tests that need it say so and pass.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The member by which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// The checker axe-core, which rates problems of a page.
const AXE: &str = include_str!("axe.min.js");

/// Time that something may take to be seen. A machine that does much else is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one window.
pub(super) struct Browser {
    driver: Child,
    client: reqwest::Client,
    session: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser with the session; killed before, it would leave it.
        let _ = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-X", "DELETE", &self.session])
            .status();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Returns the browser, of this size and with this theme; none where there is no Chromium.
pub(super) async fn browser((width, height): (u32, u32), dark: bool) -> Option<Browser> {
    let started = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).spawn();
    let Ok(mut driver) = started else {
        println!("skipped: there is no chromedriver here (Debian: chromium-driver)");
        return None;
    };
    let said = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = said.map_while(Result::ok).find_map(|line| {
        let (_, port) = line.split_once("successfully on port ")?;
        port.trim_end_matches('.').parse::<u16>().ok()
    });
    let base = format!("http://127.0.0.1:{}", port.expect("the driver says its port"));
    let client = reqwest::Client::new();
    let theme = if dark { "--force-dark-mode" } else { "--disable-features=DarkMode" };
    let asked = json!({ "capabilities": { "alwaysMatch": {
        "goog:chromeOptions": { "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", theme,
            "--disable-dev-shm-usage", format!("--window-size={width},{height}"),
        ] },
        "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
    } } });
    let answer = call(&client, "POST", &format!("{base}/session"), Some(asked)).await;
    let id = answer["sessionId"].as_str().expect("a session").to_owned();
    let browser = Browser { driver, client, session: format!("{base}/session/{id}") };
    let scheme = if dark { "dark" } else { "light" };
    let media = json!({ "cmd": "Emulation.setEmulatedMedia", "params": {
        "features": [{ "name": "prefers-color-scheme", "value": scheme }] } });
    browser.ask("POST", "/goog/cdp/execute", Some(media)).await;
    let size = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": {
        "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 } });
    browser.ask("POST", "/goog/cdp/execute", Some(size)).await;
    Some(browser)
}

async fn call(client: &reqwest::Client, method: &str, url: &str, body: Option<Value>) -> Value {
    let mut request = client.request(method.parse().unwrap(), url);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let text = request.send().await.expect("an answer of the driver").text().await.unwrap();
    let mut answer: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let value = answer["value"].take();
    assert!(value["error"].is_null(), "{method} {url}: {value}");
    value
}

impl Browser {
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        call(&self.client, method, &format!("{}{path}", self.session), body).await
    }

    pub(super) async fn go(&self, url: &str) {
        self.ask("POST", "/url", Some(json!({ "url": url }))).await;
    }

    pub(super) async fn place(&self) -> String {
        self.ask("GET", "/url", None).await.as_str().unwrap().to_owned()
    }

    /// Returns the result of a script, which is the body of a function.
    pub(super) async fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", Some(json!({ "script": script, "args": [] }))).await
    }

    async fn find(&self, selector: &str) -> Option<String> {
        let asked = json!({ "using": "css selector", "value": selector });
        let found = self.ask("POST", "/elements", Some(asked)).await;
        found[0][ELEMENT].as_str().map(str::to_owned)
    }

    /// Waits for an element and answers it.
    async fn element(&self, selector: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.find(selector).await {
                return found;
            }
            assert!(Instant::now() < until, "there is no {selector} at {}", self.place().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        self.ask("POST", &format!("/element/{element}/click"), Some(json!({}))).await;
    }

    pub(super) async fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        let body = json!({ "text": text });
        self.ask("POST", &format!("/element/{element}/value"), Some(body)).await;
    }

    /// Presses keys, one after the other, wherever the focus is.
    pub(super) async fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                let key = key.to_string();
                [
                    json!({ "type": "keyDown", "value": key }),
                    json!({ "type": "keyUp", "value": key }),
                ]
            })
            .collect();
        let body = json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] });
        self.ask("POST", "/actions", Some(body)).await;
    }

    /// Returns the text that is to be seen.
    pub(super) async fn text(&self) -> String {
        let text = self.run("return document.body ? document.body.innerText : ''").await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page says something.
    pub(super) async fn says(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = self.text().await;
            if seen.contains(text) {
                return;
            }
            assert!(Instant::now() < until, "the page does not say '{text}':\n{seen}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Errors that the browser told of since this was asked last.
    pub(super) async fn errors(&self) -> Vec<String> {
        let log = self.ask("POST", "/se/log", Some(json!({ "type": "browser" }))).await;
        let told = log.as_array().into_iter().flatten();
        told.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Returns the requests since the last call.
    pub(super) async fn requests(&self) -> Vec<String> {
        let log = self.ask("POST", "/se/log", Some(json!({ "type": "performance" }))).await;
        let lines = log.as_array().into_iter().flatten();
        let messages = lines.filter_map(|line| {
            let text = line["message"].as_str()?;
            let message: Value = serde_json::from_str(text).ok()?;
            let message = &message["message"];
            let asked = message["method"] == "Network.requestWillBeSent";
            asked.then(|| {
                message["params"]["request"]["url"].as_str().unwrap_or_default().to_owned()
            })
        });
        messages.collect()
    }

    /// Returns the problems of the page that axe-core rates serious or critical.
    pub(super) async fn unfit(&self) -> Vec<String> {
        self.run(&format!("{AXE}; window.axe = axe; return true")).await;
        let script = "const done = arguments[0]; axe.run(document, { resultTypes: ['violations'], runOnly: \
            ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] }).then((found) => done(found.violations.filter((one) => \
            ['serious', 'critical'].includes(one.impact)).map((one) => one.id + ': ' + one.nodes.slice(0, 3).map((node) => \
            node.html.slice(0, 160) + ' ' + (node.any[0] ? node.any[0].message : '')).join(' | '))), (error) => done([String(error)]))";
        let found =
            self.ask("POST", "/execute/async", Some(json!({ "script": script, "args": [] }))).await;
        let found = found.as_array().into_iter().flatten();
        found.map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Keeps a picture of the page beside the build.
    pub(super) async fn shoot(&self, name: &str) {
        let dir = std::env::var_os("BACKSTITCH_SHOTS").map(PathBuf::from);
        let Some(dir) = dir else { return };
        let size = "const all = document.documentElement; return [all.clientWidth, Math.min(all.scrollHeight, 4000)]";
        let size = self.run(size).await;
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let params = json!({ "captureBeyondViewport": true, "clip": clip });
        let asked = json!({ "cmd": "Page.captureScreenshot", "params": params });
        let shot = self.ask("POST", "/goog/cdp/execute", Some(asked)).await;
        std::fs::create_dir_all(&dir).unwrap();
        let data = shot["data"].as_str().unwrap().to_owned();
        let encoded = dir.join(format!("{name}.b64"));
        std::fs::write(&encoded, data).unwrap();
        let picture = std::fs::File::create(dir.join(format!("{name}.png"))).unwrap();
        let status =
            Command::new("base64").arg("-d").arg(&encoded).stdout(picture).status().unwrap();
        assert!(status.success());
        std::fs::remove_file(encoded).unwrap();
    }
}
