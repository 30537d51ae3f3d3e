//! The servers that are compared and the application behind them.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use vestibule::cert;

use crate::process::Server;

/// Where the servers find their files.
pub struct Setup<'a> {
    directory: &'a Path,
    certificate: &'a cert::Made,
    pub application: u16,
    /// Of Vestibule.
    pub workers: usize,
    /// Where Vestibule and nginx run.
    pub cores: &'static str,
}

impl<'a> Setup<'a> {
    pub fn new(directory: &'a Path, certificate: &'a cert::Made) -> Self {
        Self { directory, certificate, application: free_port(), workers: 1, cores: "0" }
    }

    /// One that costs next to nothing: nginx with files that are in the system's memory. It reads an upload
    /// whole before it answers.
    pub fn application(&self) -> Server {
        let port = self.application;
        let files = self.directory.join("files");
        std::fs::create_dir_all(files.join("big")).unwrap();
        std::fs::write(files.join("page"), vec![b'x'; 1024]).unwrap();
        std::fs::write(files.join("big/64k"), vec![b'x'; 64 * 1024]).unwrap();
        std::fs::write(files.join("big/1m"), vec![b'x'; 1024 * 1024]).unwrap();
        let server = format!(
            "access_log off; sendfile on; tcp_nopush on;
             server {{
                 listen 127.0.0.1:{port};
                 root {};
                 open_file_cache max=10;
                 location = /login {{ return 302 /; }}
                 location = /auth {{ return 204; }}
                 location = /sink {{ return 204; }}
                 location = /upload {{
                     client_max_body_size 2m; client_body_buffer_size 2m;
                     proxy_pass http://127.0.0.1:{port}/sink;
                 }}
                 location / {{ default_type text/plain; }}
             }}",
            files.display()
        );
        self.start_nginx("application", port, "1", &server)
    }

    /// Those that are asked for, nginx first; all without a wish.
    pub fn servers(&self, wanted: Option<&str>) -> Vec<Server> {
        let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted.split(',').any(|wanted| wanted == name));
        let mut servers = vec![self.nginx("nginx", "")];
        if is_wanted("vestibule") {
            servers.push(self.vestibule("vestibule", "memory:", ""));
        }
        if wanted.is_none() && elsewhere().is_some() {
            let command = [env!("CARGO_BIN_EXE_vestibule"), "run", "--config"];
            servers.push(self.vestibule_by(&command, "as built by cargo", "memory:", ""));
        }
        if is_wanted("auth_request") {
            servers.push(self.nginx("nginx + auth_request", "auth_request /auth;"));
        }
        if is_wanted("haproxy") {
            servers.push(self.haproxy());
        }
        if is_wanted("caddy") {
            servers.push(self.caddy());
        }
        servers
    }

    /// nginx as one would set it up for speed: connections to the application are kept, and buffers fit.
    pub fn nginx(&self, name: &'static str, more: &str) -> Server {
        let (port, application) = (free_port(), self.application);
        let (certificate, key) = (self.certificate.certificate.display(), self.certificate.key.display());
        let log = format!("{}/{port}.log", self.directory.display());
        let server = format!(
            "access_log {log};
             upstream application {{ server 127.0.0.1:{application}; keepalive 256; keepalive_requests 1000000000; }}
             server {{
                 listen 127.0.0.1:{port} ssl http2;
                 server_name bench.test;
                 ssl_certificate {certificate};
                 ssl_certificate_key {key};
                 ssl_protocols TLSv1.3;
                 ssl_ecdh_curve X25519;
                 client_max_body_size 2m;
                 client_header_buffer_size 8k;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_set_header Host $http_host;
                 proxy_set_header X-Forwarded-For $remote_addr;
                 proxy_set_header X-Forwarded-Proto https;
                 proxy_request_buffering off;
                 location / {{ {more} proxy_pass http://application; }}
                 location /big/ {{
                     {more} proxy_pass http://application;
                     proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;
                 }}
                 location = /auth {{
                     internal;
                     proxy_pass http://application;
                     proxy_pass_request_body off;
                     proxy_set_header Connection '';
                     proxy_set_header Content-Length '';
                     proxy_set_header X-Original-URI $request_uri;
                 }}
             }}"
        );
        self.start_nginx(name, port, self.cores, &server)
    }

    fn start_nginx(&self, name: &'static str, port: u16, core: &str, http: &str) -> Server {
        let own = self.directory.join(format!("nginx-{port}"));
        std::fs::create_dir(&own).unwrap();
        let at = own.display();
        let settings = format!(
            "daemon off; worker_processes 1; worker_rlimit_nofile 65536; pid {at}/pid; error_log {at}/error.log;
             events {{ worker_connections 32768; }}
             http {{
                 client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
                 uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
                 keepalive_requests 1000000000; keepalive_timeout 1h;
                 {http}
             }}"
        );
        let file = self.settings(&format!("nginx-{port}/nginx.conf"), &settings);
        Server::start(name, port, core, &["nginx", "-c", &file, "-p", &at.to_string()], self.log(port))
    }

    fn haproxy(&self) -> Server {
        let (port, application) = (free_port(), self.application);
        let both = [&self.certificate.certificate, &self.certificate.key].map(|file| std::fs::read(file).unwrap());
        let pem = self.directory.join("haproxy.pem");
        std::fs::write(&pem, both.concat()).unwrap();
        let settings = format!(
            "global
                 nbthread 1
                 maxconn 8192
                 log stdout format raw local0
             defaults
                 mode http
                 log global
                 option httplog
                 option forwardfor
                 http-reuse always
                 timeout connect 5s
                 timeout client 1h
                 timeout server 1m
                 timeout http-keep-alive 1h
             frontend https
                 bind 127.0.0.1:{port} ssl crt {} alpn h2,http/1.1 curves X25519 ssl-min-ver TLSv1.3
                 http-request set-header X-Forwarded-Proto https
                 default_backend application
             backend application
                 server application 127.0.0.1:{application} pool-max-conn 256\n",
            pem.display()
        );
        let file = self.settings("haproxy.cfg", &settings);
        Server::start("haproxy", port, "0", &["haproxy", "-db", "-f", &file], self.log(port))
    }

    fn caddy(&self) -> Server {
        let (port, application) = (free_port(), self.application);
        let (certificate, key) = (self.certificate.certificate.display(), self.certificate.key.display());
        let settings = format!(
            "{{
                 admin off
                 auto_https off
             }}
             https://bench.test:{port} {{
                 bind 127.0.0.1
                 log {{
                     output file {}/caddy.log
                 }}
                 tls {certificate} {key} {{
                     protocols tls1.3
                     curves x25519
                 }}
                 forward_auth 127.0.0.1:{application} {{
                     uri /auth
                 }}
                 reverse_proxy 127.0.0.1:{application}
             }}\n",
            self.directory.display()
        );
        let file = self.settings("Caddyfile", &settings);
        let command = ["caddy", "run", "--adapter", "caddyfile", "--config", &file];
        let mut caddy = Server::start("caddy + forward_auth", port, "0", &command, self.log(port));
        caddy.slowness = 5;
        caddy
    }

    /// With every check of a request, but for what `session` says. Everybody logs in from one address, so that
    /// logins are not slowed down.
    pub fn vestibule(&self, name: &'static str, store: &str, session: &str) -> Server {
        let program = elsewhere().unwrap_or_else(|| env!("CARGO_BIN_EXE_vestibule").to_owned());
        self.vestibule_by(&[&program, "run", "--config"], name, store, session)
    }

    /// The same as this command runs it, which is given the configuration.
    pub fn vestibule_by(&self, command: &[&str], name: &'static str, store: &str, session: &str) -> Server {
        let port = free_port();
        let file = self.vestibule_settings(port, store, session);
        let command = [command, &[&file]].concat();
        let mut vestibule = Server::start(name, port, self.cores, &command, self.log(port));
        vestibule.has_sessions = true;
        vestibule
    }

    /// Has one that runs take on other settings of sessions.
    pub fn settle(&self, vestibule: &Server, store: &str, session: &str) {
        let settled = || self.said(vestibule, "config.reloaded");
        let before = settled();
        self.vestibule_settings(vestibule.port, store, session);
        vestibule.signal("HUP");
        let deadline = Instant::now() + Duration::from_secs(10);
        while settled() == before {
            assert!(Instant::now() < deadline, "{} does not take the settings on", vestibule.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn vestibule_settings(&self, port: u16, store: &str, session: &str) -> String {
        let application = self.application;
        let (certificate, key) = (self.certificate.certificate.display(), self.certificate.key.display());
        let workers = self.workers;
        let settings = format!(
            "[listen]
             https = '127.0.0.1:{port}'
             workers = {workers}
             [tls]
             certificate = '{certificate}'
             key = '{key}'
             [limits]
             connections = 32768
             connections_per_address = 32768
             upstream_connections = 32768
             [store]
             url = '{store}'
             {session}
             [[site]]
             origin = 'https://bench.test:{port}'
             upstream = 'http://127.0.0.1:{application}'
             [site.login]
             path = '/login'
             user = 'form:user'
             success = {{ status = 302 }}
             throttle = {{ per_account = 'off', per_address = 'off' }}"
        );
        self.settings(&format!("{port}.toml"), &settings)
    }

    /// A Redis that keeps nothing on the disk: what is measured is the way to it.
    pub fn redis(&self) -> Server {
        self.redis_at(free_port(), &["--save", ""])
    }

    /// A Redis that keeps what it was given, as documented: to be started again at the same port.
    pub fn lasting_redis(&self, port: Option<u16>) -> Server {
        let port = port.unwrap_or_else(free_port);
        self.redis_at(port, &["--appendonly", "yes", "--appenddirname", &format!("redis-{port}")])
    }

    fn redis_at(&self, port: u16, more: &[&str]) -> Server {
        let (at, number) = (self.directory.display().to_string(), port.to_string());
        let command = ["redis-server", "--port", &number, "--bind", "127.0.0.1", "--dir", &at];
        Server::start("redis-server", port, "1", &[&command, more].concat(), self.log(port))
    }

    /// How many lines with this a server has written.
    pub fn said(&self, server: &Server, what: &str) -> usize {
        let log = self.directory.join(format!("{}.out", server.port));
        let found = Command::new("grep").args(["-c", "-e", what]).arg(log).output().expect("grep");
        String::from_utf8_lossy(&found.stdout).trim().parse().unwrap()
    }

    fn settings(&self, name: &str, text: &str) -> String {
        let file: PathBuf = self.directory.join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    }

    fn log(&self, port: u16) -> File {
        let log = self.directory.join(format!("{port}.out"));
        File::options().create(true).append(true).open(log).unwrap()
    }
}

/// The program that is compared, if it is not cargo's.
fn elsewhere() -> Option<String> {
    std::env::var("VESTIBULE").ok()
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// What was compared.
pub fn versions() -> String {
    let ours = version(env!("CARGO_BIN_EXE_vestibule"), "--version");
    let theirs = [version("nginx", "-v"), version("haproxy", "-v"), format!("caddy {}", version("caddy", "version"))];
    format!("{ours}; {}; {}; {}", theirs.join("; "), version("h2load", "--version"), version("uname", "-sr"))
}

/// What a program says when it is asked for its version.
pub fn version(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned();
    said.split(" - ").next().unwrap_or_default().to_owned()
}
