// SPDX-License-Identifier: MPL-2.0

//! `fastganseg-train`: trains and evaluates the regressor of the `fastganseg` element.

mod commands;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fastganseg_training::distributed::{Place, exit_now};

#[derive(Debug, Parser)]
#[command(
    name = "fastganseg-train",
    version,
    about = "Trains and evaluates the networks of the element fastganseg"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ablate(commands::ablate::Args),
    Clips(commands::clips::Args),
    Eval(commands::eval::Args),
    Export(commands::export::Args),
    Info(commands::info::Args),
    Matte(commands::matte::Args),
    Prompt(commands::prompt::Args),
    Score(commands::score::Args),
    Train(commands::train::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Ablate(args) => commands::ablate::run(&args),
        Command::Clips(args) => commands::clips::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Info(args) => commands::info::run(&args),
        Command::Matte(args) => commands::matte::run(&args),
        Command::Prompt(args) => commands::prompt::run(&args),
        Command::Score(args) => commands::score::run(&args),
        Command::Train(args) => commands::train::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match Place::from_environment() {
            Ok(Some(place)) => {
                eprintln!("rank {}: error: {error}", place.rank);
                exit_now(1)
            }
            _ => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
