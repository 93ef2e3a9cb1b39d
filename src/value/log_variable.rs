//! The variables that a format of the access log may name: the proxy refuses its whole configuration for one that it
//! does not have.
//!
//! Envoy's renderer has to say which of them it can express.

/// Variables that come from us rather than from nginx, under the names that ingress-nginx gave them: the renderer
/// defines every one.
pub const OURS: &[&str] = &[
    "best_http_host",
    "ingress_name",
    "location_path",
    "namespace",
    "pass_access_scheme",
    "pass_port",
    "proxy_alternative_upstream_name",
    "proxy_upstream_name",
    "req_id",
    "service_name",
    "service_port",
    "the_real_ip",
];

/// Variables of nginx's core and of the modules that its stock builds have.
#[rustfmt::skip]
pub const STOCK: &[&str] = &[
    "ancient_browser", "args", "binary_remote_addr", "body_bytes_sent", "bytes_sent", "connection",
    "connection_requests", "connection_time", "connections_active", "connections_reading", "connections_waiting",
    "connections_writing", "content_length", "content_type", "date_gmt", "date_local", "document_root", "document_uri",
    "fastcgi_path_info", "fastcgi_script_name", "gzip_ratio", "host", "hostname", "http2", "http3", "https", "is_args",
    "limit_conn_status", "limit_rate", "limit_req_status", "modern_browser", "msec", "msie", "nginx_version", "pid",
    "pipe", "proxy_add_x_forwarded_for", "proxy_host", "proxy_port", "proxy_protocol_addr", "proxy_protocol_port",
    "proxy_protocol_server_addr", "proxy_protocol_server_port", "query_string", "realip_remote_addr",
    "realip_remote_port", "realpath_root", "remote_addr", "remote_port", "remote_user", "request", "request_body",
    "request_body_file", "request_completion", "request_filename", "request_id", "request_length", "request_method",
    "request_port", "request_time", "request_uri", "scheme", "secure_link", "secure_link_expires", "server_addr",
    "server_name", "server_port", "server_protocol", "slice_range", "ssl_alpn_protocol", "ssl_cipher", "ssl_ciphers",
    "ssl_client_cert", "ssl_client_escaped_cert", "ssl_client_fingerprint", "ssl_client_i_dn", "ssl_client_i_dn_legacy",
    "ssl_client_raw_cert", "ssl_client_s_dn", "ssl_client_s_dn_legacy", "ssl_client_serial", "ssl_client_v_end",
    "ssl_client_v_remain", "ssl_client_v_start", "ssl_client_verify", "ssl_curve", "ssl_curves", "ssl_early_data",
    "ssl_protocol", "ssl_server_name", "ssl_session_id", "ssl_session_reused", "status", "tcpinfo_rcv_space",
    "tcpinfo_rtt", "tcpinfo_rttvar", "tcpinfo_snd_cwnd", "time_iso8601", "time_local", "uid_got", "uid_reset", "uid_set",
    "upstream_addr", "upstream_bytes_received", "upstream_bytes_sent", "upstream_cache_status", "upstream_connect_time",
    "upstream_header_time", "upstream_response_length", "upstream_response_time", "upstream_status", "uri",
];

/// Beginnings of the names of variables that nginx has for every name of a header, cookie or argument.
pub const FAMILIES: &[&str] = &[
    "arg_",
    "cookie_",
    "http_",
    "sent_http_",
    "sent_trailer_",
    "upstream_cookie_",
    "upstream_http_",
    "upstream_trailer_",
];

/// Whether the proxy has a variable of this name, in lower case.
pub fn exists(name: &str) -> bool {
    let one_of = |beginning: &&str| name.len() > beginning.len() && name.starts_with(*beginning);
    OURS.contains(&name) || STOCK.binary_search(&name).is_ok() || FAMILIES.iter().any(one_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted() {
        assert!(STOCK.is_sorted() && OURS.is_sorted() && FAMILIES.is_sorted());
    }

    #[test]
    fn names_are_looked_up_whole() {
        for good in ["status", "args", "uri", "req_id", "http_x_forwarded_for", "cookie_a"] {
            assert!(exists(good), "{good}");
        }
        for bad in ["", "statu", "http_", "remote_adr", "geoip2_city_name"] {
            assert!(!exists(bad), "{bad}");
        }
    }
}
