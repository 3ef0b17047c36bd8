//! `run watch` and `job watch`: ask until it is over. Drawn anew in place on a terminal, else one line for each change.

use std::io::IsTerminal;
use std::time::Duration;

use backstitch_saga::protocol::{JobState, JobView, RunView, State};
use indicatif::{ProgressBar, ProgressStyle};

use super::args::Asked;
use super::client::Client;
use super::profile::Form;
use super::screen::{self, Screen};
use super::{Failure, draw, exit_of};
use crate::print;

/// For how long the server may keep the answer back while the run goes on: how often it is drawn.
const EVERY: &str = "1s";

/// Watches the run that is asked for. Returns the exit code.
pub(crate) async fn run(client: &Client, asked: &Asked, form: Form) -> Result<u8, Failure> {
    let mut asked = asked.clone();
    let terminal = std::io::stdout().is_terminal() && form == Form::Table;
    let mut graph = None;
    let mut seen = 0;
    let mut place = Screen::default();
    loop {
        let answer = client.ask(&asked).await?;
        let view: RunView = serde_json::from_str(&answer.text)
            .map_err(|error| Failure::Unreachable(format!("the answer is no run: {error}")))?;
        if view.seq != seen || terminal {
            if terminal {
                if graph.is_none() {
                    graph = client.graph(&view).await;
                }
                let text = draw::run(&view, graph.as_deref(), None);
                // A terminal that does not say its size is taken for the usual one.
                let (rows, columns) = screen::size().unwrap_or((24, 80));
                print::text(match view.state {
                    State::Ended => place.finish(&text, rows, columns),
                    _ => place.redraw(&text, rows, columns),
                });
            } else if form == Form::Json {
                print::line(&answer.text);
            } else {
                print::line(draw::line(&view));
            }
        }
        seen = view.seq;
        if view.state == State::Ended {
            return Ok(exit_of(view.outcome));
        }
        asked.query = vec![("wait".to_owned(), EVERY.to_owned())];
    }
}

/// Watches the job that is asked for, with a bar on a terminal. Returns the exit code.
pub(crate) async fn job(client: &Client, asked: &Asked, form: Form) -> Result<u8, Failure> {
    let mut said = String::new();
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}  {elapsed}");
    let bar = ProgressBar::no_length();
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // The bar hides itself where standard error is no terminal; then lines tell.
    let terminal = !bar.is_hidden() && form == Form::Table;
    loop {
        let answer = client.ask(asked).await?;
        let view: JobView = serde_json::from_str(&answer.text)
            .map_err(|error| Failure::Unreachable(format!("the answer is no job: {error}")))?;
        let (state, counts) = job_words(&view);
        if terminal {
            bar.set_length(view.progress.total);
            bar.set_position(view.progress.total - view.progress.waiting);
            bar.set_message(format!("{state}: {counts}"));
        } else if said != format!("{state}{counts}") {
            match form {
                Form::Json => print::line(&answer.text),
                Form::Table => print::line(format_args!("{state:<8} {counts}")),
            }
        }
        said = format!("{state}{counts}");
        if view.ended_at.is_some() {
            bar.finish_and_clear();
            if terminal {
                print::line(format_args!(
                    "{state}: {counts}{}",
                    view.why.map_or(String::new(), |why| format!("; {why}"))
                ));
            }
            let all = view.progress.done == view.progress.total && view.state == JobState::Done;
            return Ok(if all { 0 } else { super::exit::NOT_ALL });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Describes the state of a job, and its progress.
fn job_words(view: &JobView) -> (&'static str, String) {
    let progress = &view.progress;
    let mut counts = format!("{} of {} done", progress.done, progress.total);
    for (count, word) in [(progress.came_back, "came back"), (progress.refused, "refused")] {
        if count > 0 {
            counts += &format!(", {count} {word}");
        }
    }
    (view.state.as_str(), counts)
}
