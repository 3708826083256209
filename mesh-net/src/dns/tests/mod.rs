mod refresh;
mod resolver;
mod server;
