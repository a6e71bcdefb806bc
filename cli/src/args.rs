//! The command line: what can be said, and the help that says so.
//!
//! Why apart from the commands: completions are made from this alone.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::exit;
use crate::names::Kind;
use crate::site::Shape;
use crate::text;
use crate::ui::Format;

/// Deploy and watch applications on clusters of edge machines.
#[derive(Debug, Parser)]
#[command(
    name = "marram",
    version,
    arg_required_else_help = true,
    after_help = exit::HELP,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The root to speak to [default: the last one logged in at, else http://127.0.0.1:10000]
    #[arg(long, global = true, value_name = "URL", env = "MARRAM_SERVER", hide_env_values = true)]
    pub(crate) server: Option<String>,
    /// Speak with the cluster of this machine instead of a root, at its own socket [default: that
    /// of `marram up`, else /var/lib/marram/cluster/cluster.sock]. For get instances, nodes and
    /// clusters, describe, logs, exec, cordon, uncordon, drain, forget and rebalance
    #[arg(
        long,
        global = true,
        value_name = "SOCKET",
        num_args = 0..=1,
        require_equals = true
    )]
    pub(crate) cluster: Option<Option<PathBuf>>,
    /// Where logins are kept [default: ~/.config/marram/config.toml]
    #[arg(long, global = true, value_name = "FILE", env = "MARRAM_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// Print results and errors only, no progress and no notes
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// The form of results
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a root, a cluster and a node on this machine, and log in
    #[command(after_help = "Examples:\n  marram up\n  \
        marram up --dir /var/lib/marram --port 11000 --node-config node.toml\n  \
        marram up --dir ./tree --tree 1x3x2\n\n\
        What runs already is left running; what is missing is started.")]
    Up(UpArgs),
    /// Stop what `up` started, workloads first
    #[command(after_help = "Examples:\n  marram down\n  marram down --dir ./site --purge")]
    Down(DownArgs),
    /// Log in at a root
    #[command(after_help = "Examples:\n  marram login\n  \
        marram login --password-file STATE/admin-password\n  \
        pass show marram | marram login --password-stdin")]
    Login(LoginArgs),
    /// Deploy the applications of an SLA document
    #[command(after_help = "Examples:\n  marram apply examples/clientsrvr.json --wait\n  \
        marram apply --wait --timeout 10m - < app.json\n\n\
        What is there already stays; each service without an instance gets one.")]
    Apply(ApplyArgs),
    /// List what there is
    #[command(after_help = "Examples:\n  marram get instances\n  marram get nodes -o wide\n  \
        marram get services -o json\n  marram get clusters --foreign\n  \
        marram --cluster get nodes")]
    Get {
        /// What to list
        kind: Kind,
        /// Clusters and nodes that belong to another tree and are not taken; see `adopt`
        #[arg(long)]
        foreign: bool,
    },
    /// Show all that is known of one thing
    #[command(after_help = "Examples:\n  marram describe instance nginx.0\n  \
        marram describe node pi4-1\n\n\
        Of an instance it shows what every tier on the way decided: why it is where it is, or why\n\
        it does not run.")]
    Describe {
        /// What it is
        kind: Kind,
        /// Its name or id
        name: String,
    },
    /// Have so many instances of a service
    #[command(after_help = "Examples:\n  marram scale nginx 5 --wait\n  \
        marram scale clientsrvr.test.nginx.test 0\n\n\
        New ones get new numbers; of those that are there, the ones with the highest go first. One\n\
        step adds or removes at most 250.")]
    Scale(ScaleArgs),
    /// Give clusters or nodes nothing new
    #[command(after_help = "Examples:\n  marram cordon berlin/pi4-1\n  \
        marram cordon --selector 'edge-*&site=berlin' --dry-run\n\n\
        What runs there stays. `uncordon` ends it.")]
    Cordon(OperateArgs),
    /// Give clusters or nodes work again, after `cordon` or `drain`
    #[command(after_help = "Example:\n  marram uncordon berlin/pi4-1")]
    Uncordon(OperateArgs),
    /// Give clusters or nodes nothing new, and move what runs there elsewhere
    #[command(after_help = "Examples:\n  marram drain berlin/pi4-1\n  \
        marram drain --selector site=berlin\n  marram --cluster drain pi4-1\n\n\
        Returns when it is noted; moving goes on, started there before it is stopped here. What\n\
        cannot be moved stays, and `describe instance` says why.")]
    Drain(OperateArgs),
    /// Give clusters or nodes that are away up for lost
    #[command(after_help = "Example:\n  marram forget berlin/pi4-1\n\n\
        What was placed there is placed elsewhere at once.")]
    Forget(OperateArgs),
    /// Move what would sit better elsewhere
    #[command(after_help = "Examples:\n  marram rebalance berlin\n  marram rebalance\n\n\
        Without a cluster: everywhere.")]
    Rebalance(OperateArgs),
    /// Take a cluster or node of another tree, and stop what is not desired here
    #[command(after_help = "Examples:\n  marram get clusters --foreign\n  marram adopt berlin")]
    Adopt {
        /// Its name or id
        child: String,
    },
    /// Remove an application, a service or an instance
    #[command(after_help = "Examples:\n  marram delete application clientsrvr --wait\n  \
        marram delete instance clientsrvr.test.nginx.test.0")]
    Delete(DeleteArgs),
    /// Print what an instance wrote
    #[command(after_help = "Examples:\n  marram logs nginx.0\n  marram logs nginx.0 -f --tail 20")]
    Logs(LogsArgs),
    /// Run a program inside an instance
    #[command(after_help = "Examples:\n  marram exec -t nginx.0 -- sh\n  \
        marram exec nginx.0 -- tar c /etc/nginx > nginx.tar\n\n\
        Ends with the code of the program, 128+N if signal N ended it, 125 if marram failed.")]
    Exec(ExecArgs),
    /// Print the versions of this program and of the server
    Version {
        /// Do not ask the server
        #[arg(long)]
        client: bool,
    },
    /// Print completions for a shell
    #[command(after_help = "Example:\n  \
        marram completions bash > ~/.local/share/bash-completion/completions/marram")]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

impl Command {
    /// Whether a cluster knows it as well as a root.
    pub(crate) fn is_for_clusters(&self) -> bool {
        match self {
            Self::Get { kind, .. } | Self::Describe { kind, .. } => {
                matches!(kind, Kind::Instance | Kind::Cluster | Kind::Node)
            }
            Self::Logs(_)
            | Self::Exec(_)
            | Self::Cordon(_)
            | Self::Uncordon(_)
            | Self::Drain(_)
            | Self::Forget(_)
            | Self::Rebalance(_)
            | Self::Adopt { .. }
            | Self::Version { .. } => true,
            Self::Up(_)
            | Self::Down(_)
            | Self::Login(_)
            | Self::Apply(_)
            | Self::Scale(_)
            | Self::Delete(_)
            | Self::Completions { .. } => false,
        }
    }
}

/// Whether and how long to wait.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait until it is done, and show how it goes
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait at most: 90s, 5m, 2h
    #[arg(long, requires = "wait", default_value = "5m", value_parser = text::duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The SLA document, JSON; - for standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// What can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deletable {
    /// With all its services.
    #[value(aliases = ["applications", "apps", "app"])]
    Application,
    /// With all its instances.
    #[value(aliases = ["services", "svc", "microservice", "microservices"])]
    Service,
    /// Only this copy.
    #[value(aliases = ["instances", "inst"])]
    Instance,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// What it is
    pub(crate) kind: Deletable,
    /// Its name or id
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Name or id, such as nginx
    pub(crate) service: String,
    /// How many
    pub(crate) replicas: u32,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// With whom something is to be done.
#[derive(Debug, Args)]
pub(crate) struct OperateArgs {
    /// Clusters and nodes: a path (berlin/mitte/pi4-1), a name that only one has, or an id
    pub(crate) targets: Vec<String>,
    /// All clusters of the tree with such names or labels: edge-*, site=berlin,tier!=lab, or both
    /// joined by &
    #[arg(short, long)]
    pub(crate) selector: Option<String>,
    /// The selector chooses nodes instead
    #[arg(long, requires = "selector")]
    pub(crate) nodes: bool,
    /// Only list who is meant
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Name or id, such as nginx.0
    pub(crate) instance: String,
    /// Go on printing as it writes
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with the last N lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Name or id, such as nginx.0
    pub(crate) instance: String,
    /// Give the program a terminal, this one
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Give the program no input
    #[arg(short, long, conflicts_with = "tty")]
    pub(crate) no_stdin: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Who you are
    #[arg(short, long, default_value = "Admin")]
    pub(crate) username: String,
    /// Read the password from the first line of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long, conflicts_with = "password_file")]
    pub(crate) password_stdin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Where everything of this site is kept [default: ~/.local/state/marram]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// A tree instead of one of each: how many are below each of the tier above, from the root to
    /// the nodes. 1x3x2 is 3 clusters with 2 nodes each, 1x2x3x2 has clusters below clusters; at
    /// most 32 programs
    #[arg(long, value_name = "1xCxN")]
    pub(crate) tree: Option<Shape>,
    /// Name of the cluster [default: local]
    #[arg(long, conflicts_with = "tree")]
    pub(crate) name: Option<String>,
    /// Port of the root; the next one and, without a tree, the third after it are used as well; 0
    /// for any free ones [default: 10000]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// TOML laid over the node's generated configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) node_config: Option<PathBuf>,
    /// Where marram-root, marram-cluster and marram-node are [default: beside this program]
    #[arg(long)]
    pub(crate) bin_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// Where the site is kept [default: ~/.local/state/marram]
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Remove the folder as well, with all that was ever deployed
    #[arg(long)]
    pub(crate) purge: bool,
    /// Leave workloads running
    #[arg(long, conflicts_with = "purge")]
    pub(crate) keep_workloads: bool,
    /// Where marram-node is [default: beside this program]
    #[arg(long)]
    pub(crate) bin_dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_program_keeps_its_own_options() {
        let cli =
            Cli::try_parse_from(["marram", "exec", "a.0", "-t", "--", "sh", "-c", "x"]).unwrap();
        let Command::Exec(exec) = cli.command else { panic!("exec") };
        assert!(exec.tty);
        assert_eq!(exec.command, ["sh", "-c", "x"]);
        assert!(Cli::try_parse_from(["marram", "exec", "a.0"]).is_err());
    }

    #[test]
    fn a_socket_is_named_behind_an_equals_sign_or_not_at_all() {
        let parse = |args: &[&str]| Cli::try_parse_from(args).map(|cli| cli.global.cluster);
        assert_eq!(parse(&["marram", "get", "nodes"]).unwrap(), None);
        let usual = parse(&["marram", "--cluster", "get", "nodes"]).unwrap();
        assert_eq!(usual, Some(None));
        let named = parse(&["marram", "get", "nodes", "--cluster=/run/c.sock"]).unwrap();
        assert_eq!(named, Some(Some("/run/c.sock".into())));
    }

    #[test]
    fn a_time_limit_needs_a_wait() {
        assert!(Cli::try_parse_from(["marram", "apply", "f", "--timeout", "5s"]).is_err());
        assert!(Cli::try_parse_from(["marram", "apply", "f", "--wait", "--timeout", "5s"]).is_ok());
        assert!(Cli::try_parse_from(["marram", "apply", "f"]).is_ok());
    }
}
