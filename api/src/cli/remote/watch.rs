//! `run watch`: asks for the run until it ends. Drawn anew in place on a terminal, else one line for each change.

use std::io::{IsTerminal, Write};

use backstitch_saga::protocol::{RunView, State};

use super::args::Asked;
use super::client::Client;
use super::profile::Output;
use super::{Failure, draw, exit_of};

/// For how long the server may keep the answer back while the run goes on: how often it is drawn.
const EVERY: &str = "1s";

/// Watches the run that is asked for. Answers the exit code.
pub(crate) async fn run(client: &Client, asked: &Asked, output: Output) -> Result<u8, Failure> {
    let mut asked = asked.clone();
    let terminal = std::io::stdout().is_terminal() && output == Output::Table;
    let mut graph = None;
    let mut seen = 0;
    let mut drawn = 0;
    loop {
        let answer = client.ask(&asked).await?;
        let view: RunView = serde_json::from_str(&answer.text)
            .map_err(|error| Failure::Unreachable(format!("the answer is no run: {error}")))?;
        if view.seq != seen || terminal {
            if terminal {
                if graph.is_none() {
                    graph = client.graph(&view).await;
                }
                drawn = redraw(&draw::run(&view, graph.as_deref()), drawn);
            } else if output == Output::Json {
                println!("{}", answer.text);
            } else {
                println!("{}", draw::line(&view));
            }
        }
        seen = view.seq;
        if view.state == State::Ended {
            return Ok(exit_of(view.outcome));
        }
        asked.query = vec![("wait".to_owned(), EVERY.to_owned())];
    }
}

/// Draws over what was drawn before. Answers how many lines there are now.
fn redraw(text: &str, drawn: usize) -> usize {
    let mut out = std::io::stdout().lock();
    let up = if drawn > 0 { format!("\x1b[{drawn}A") } else { String::new() };
    // A terminal that is gone is noticed by the next line.
    let _ = write!(out, "{up}\x1b[0J{text}");
    let _ = out.flush();
    text.lines().count()
}
