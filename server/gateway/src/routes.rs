//! The route table: every endpoint that is answered, also those that are
//! refused. docs/docker.md lists the same; a test compares.

use http::Method;

use crate::{
    build,
    containers::{
        archive, attach, commit, create, inspect, lifecycle, list, logs, remove, stats, top,
        update, wait,
    },
    distribution, exec, images, networks, plugins,
    router::Route,
    swarm, system, volumes,
};

macro_rules! routes {
    ($($method:ident $pattern:literal => $handler:path,)*) => {
        &[$(Route {
            method: Method::$method,
            pattern: $pattern,
            handler: |call| Box::pin($handler(call)),
        },)*]
    };
}

/// In the order in which they are tried.
pub(crate) static ROUTES: &[Route] = routes! {
    HEAD "/_ping" => system::ping::head,
    GET "/_ping" => system::ping::get,
    GET "/version" => system::version::version,
    GET "/info" => system::info::info,
    GET "/events" => system::events::events,
    GET "/system/df" => system::df::df,
    POST "/auth" => system::auth::login,

    GET "/containers/json" => list::list,
    POST "/containers/create" => create::create,
    POST "/containers/prune" => remove::prune,
    GET "/containers/{name*}/json" => inspect::inspect,
    GET "/containers/{name*}/changes" => inspect::changes,
    GET "/containers/{name*}/top" => top::top,
    GET "/containers/{name*}/logs" => logs::logs,
    GET "/containers/{name*}/stats" => stats::stats,
    GET "/containers/{name*}/export" => commit::export,
    HEAD "/containers/{name*}/archive" => archive::stat,
    GET "/containers/{name*}/archive" => archive::get,
    PUT "/containers/{name*}/archive" => archive::put,
    GET "/containers/{name*}/attach/ws" => unsupported::websocket,
    GET "/containers/{name*}/checkpoints" => unsupported::checkpoint,
    POST "/containers/{name*}/checkpoints" => unsupported::checkpoint,
    DELETE "/containers/{name*}/checkpoints/{checkpoint}" => unsupported::checkpoint,
    POST "/containers/{name*}/attach" => attach::attach,
    POST "/containers/{name*}/exec" => exec::create,
    POST "/containers/{name*}/start" => lifecycle::start,
    POST "/containers/{name*}/stop" => lifecycle::stop,
    POST "/containers/{name*}/restart" => lifecycle::restart,
    POST "/containers/{name*}/kill" => lifecycle::kill,
    POST "/containers/{name*}/pause" => lifecycle::pause,
    POST "/containers/{name*}/unpause" => lifecycle::unpause,
    POST "/containers/{name*}/rename" => lifecycle::rename,
    POST "/containers/{name*}/resize" => lifecycle::resize,
    POST "/containers/{name*}/update" => update::update,
    POST "/containers/{name*}/wait" => wait::wait,
    DELETE "/containers/{name*}" => remove::remove,
    POST "/commit" => commit::commit,

    POST "/exec/{name}/start" => exec::start,
    POST "/exec/{name}/resize" => exec::resize,
    GET "/exec/{name}/json" => exec::inspect,

    GET "/images/json" => images::list::list,
    GET "/images/search" => images::search::search,
    GET "/images/get" => images::save::many,
    POST "/images/create" => images::pull::create,
    POST "/images/load" => images::load::load,
    POST "/images/prune" => images::prune::prune,
    GET "/images/{name*}/json" => images::inspect::inspect,
    GET "/images/{name*}/history" => images::inspect::history,
    GET "/images/{name*}/get" => images::save::one,
    POST "/images/{name*}/push" => images::push::push,
    POST "/images/{name*}/tag" => images::tag::tag,
    DELETE "/images/{name*}" => images::tag::remove,
    GET "/distribution/{name*}/json" => distribution::inspect,

    POST "/build/prune" => build::prune,
    POST "/build/cancel" => build::unsupported,
    POST "/build" => build::unsupported,
    POST "/session" => build::unsupported,
    POST "/grpc" => build::unsupported,

    GET "/networks" => networks::list,
    POST "/networks/create" => networks::create,
    POST "/networks/prune" => networks::prune,
    GET "/networks/{name*}" => networks::inspect,
    POST "/networks/{name*}/connect" => networks::connect,
    POST "/networks/{name*}/disconnect" => networks::disconnect,
    DELETE "/networks/{name*}" => networks::remove,

    GET "/volumes" => volumes::list,
    POST "/volumes/create" => volumes::create,
    POST "/volumes/prune" => volumes::prune,
    GET "/volumes/{name*}" => volumes::inspect,
    PUT "/volumes/{name*}" => swarm::no_manager,
    DELETE "/volumes/{name*}" => volumes::remove,

    GET "/plugins" => plugins::list,
    GET "/plugins/privileges" => plugins::unsupported,
    GET "/plugins/{name*}/json" => plugins::missing,
    DELETE "/plugins/{name*}" => plugins::missing,
    POST "/plugins/pull" => plugins::unsupported,
    POST "/plugins/create" => plugins::unsupported,
    POST "/plugins/{name*}/enable" => plugins::missing,
    POST "/plugins/{name*}/disable" => plugins::missing,
    POST "/plugins/{name*}/upgrade" => plugins::missing,
    POST "/plugins/{name*}/push" => plugins::missing,
    POST "/plugins/{name*}/set" => plugins::missing,

    GET "/swarm" => swarm::no_manager,
    GET "/swarm/unlockkey" => swarm::no_manager,
    POST "/swarm/init" => swarm::unsupported,
    POST "/swarm/join" => swarm::unsupported,
    POST "/swarm/leave" => swarm::no_member,
    POST "/swarm/update" => swarm::no_manager,
    POST "/swarm/unlock" => swarm::no_member,
    GET "/nodes" => swarm::no_manager,
    GET "/nodes/{name}" => swarm::no_manager,
    DELETE "/nodes/{name}" => swarm::no_manager,
    POST "/nodes/{name}/update" => swarm::no_manager,
    GET "/services" => swarm::no_manager,
    POST "/services/create" => swarm::no_manager,
    GET "/services/{name}" => swarm::no_manager,
    DELETE "/services/{name}" => swarm::no_manager,
    POST "/services/{name}/update" => swarm::no_manager,
    GET "/services/{name}/logs" => swarm::no_manager,
    GET "/tasks" => swarm::no_manager,
    GET "/tasks/{name}" => swarm::no_manager,
    GET "/tasks/{name}/logs" => swarm::no_manager,
    GET "/secrets" => swarm::no_manager,
    POST "/secrets/create" => swarm::no_manager,
    GET "/secrets/{name}" => swarm::no_manager,
    DELETE "/secrets/{name}" => swarm::no_manager,
    POST "/secrets/{name}/update" => swarm::no_manager,
    GET "/configs" => swarm::no_manager,
    POST "/configs/create" => swarm::no_manager,
    GET "/configs/{name}" => swarm::no_manager,
    DELETE "/configs/{name}" => swarm::no_manager,
    POST "/configs/{name}/update" => swarm::no_manager,
};

/// What containers can't do here.
mod unsupported {
    use crate::{
        failure::{Failure, Result},
        reply::Reply,
        request::Call,
    };

    pub(super) async fn websocket(_: Call) -> Result<Reply> {
        Err(Failure::not_implemented(
            "attaching by websocket is not supported yet; use POST /containers/{id}/attach",
        ))
    }

    pub(super) async fn checkpoint(_: Call) -> Result<Reply> {
        Err(Failure::not_implemented("checkpoints are not supported"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page that users read and the table that is served are the same.
    #[test]
    fn the_documentation_lists_every_route() {
        let page = include_str!("../../../docs/docker.md");
        let listed: Vec<(&str, &str)> = page
            .lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| ")?.split(" | ");
                Some((cells.next()?, cells.next()?))
            })
            .filter(|(_, path)| path.starts_with('/'))
            .collect();
        let served: Vec<(&str, &str)> = ROUTES
            .iter()
            .map(|route| (route.method.as_str(), route.pattern))
            .collect();
        assert_eq!(listed, served);
    }

    #[test]
    fn no_route_hides_another() {
        for (at, route) in ROUTES.iter().enumerate() {
            let path = route.pattern.replace(['{', '}', '*'], "");
            let (found, _) = crate::router::find(ROUTES, &route.method, &path).unwrap();
            assert_eq!(found.pattern, ROUTES[at].pattern, "{path}");
        }
    }
}
