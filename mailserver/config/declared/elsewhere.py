"""What belongs to parts of Postfix that are not here, to its processes and to its installation."""

# ruff: noqa: E501 - defaults are as long as they are

from __future__ import annotations

from typing import Final

from mailserver.config.declaration import Kind, group

# fmt: off
PARAMETERS: Final = (
    *group(Kind.HARMLESS, "Belongs to postscreen(8), which is not part of this program.", """
        dnsblog_reply_delay = 0s
        dnsblog_service_name = dnsblog
        postscreen_access_list = permit_mynetworks
        postscreen_allowlist_interfaces = ${postscreen_whitelist_interfaces?{$postscreen_whitelist_interfaces}:{static:all}}
        postscreen_bare_newline_action = ignore
        postscreen_bare_newline_enable = no
        postscreen_bare_newline_ttl = 30d
        postscreen_blacklist_action =
        postscreen_cache_cleanup_interval = 12h
        postscreen_cache_map = btree:$data_directory/postscreen_cache
        postscreen_cache_retention_time = 7d
        postscreen_client_connection_count_limit = $smtpd_client_connection_count_limit
        postscreen_command_count_limit = 20
        postscreen_command_filter =
        postscreen_denylist_action = ${postscreen_blacklist_action?{$postscreen_blacklist_action}:{ignore}}
        postscreen_disable_vrfy_command = $disable_vrfy_command
        postscreen_discard_ehlo_keyword_address_maps = $smtpd_discard_ehlo_keyword_address_maps
        postscreen_discard_ehlo_keywords = $smtpd_discard_ehlo_keywords
        postscreen_dnsbl_action = ignore
        postscreen_dnsbl_allowlist_threshold = ${postscreen_dnsbl_whitelist_threshold?{$postscreen_dnsbl_whitelist_threshold}:{0}}
        postscreen_dnsbl_max_ttl = ${postscreen_dnsbl_ttl?{$postscreen_dnsbl_ttl}:{1}}h
        postscreen_dnsbl_min_ttl = 60s
        postscreen_dnsbl_reply_map =
        postscreen_dnsbl_sites =
        postscreen_dnsbl_threshold = 1
        postscreen_dnsbl_timeout = 10s
        postscreen_dnsbl_ttl =
        postscreen_dnsbl_whitelist_threshold =
        postscreen_enforce_tls = $smtpd_enforce_tls
        postscreen_expansion_filter = $smtpd_expansion_filter
        postscreen_forbidden_commands = $smtpd_forbidden_commands
        postscreen_greet_action = ignore
        postscreen_greet_banner = $smtpd_banner
        postscreen_greet_ttl = 1d
        postscreen_greet_wait = ${stress?{2}:{6}}s
        postscreen_helo_required = $smtpd_helo_required
        postscreen_non_smtp_command_action = drop
        postscreen_non_smtp_command_enable = no
        postscreen_non_smtp_command_ttl = 30d
        postscreen_pipelining_action = enforce
        postscreen_pipelining_enable = no
        postscreen_pipelining_ttl = 30d
        postscreen_post_queue_limit = $default_process_limit
        postscreen_pre_queue_limit = $default_process_limit
        postscreen_reject_footer = $smtpd_reject_footer
        postscreen_reject_footer_maps = $smtpd_reject_footer_maps
        postscreen_tls_security_level = $smtpd_tls_security_level
        postscreen_upstream_proxy_protocol =
        postscreen_upstream_proxy_timeout = 5s
        postscreen_use_tls = $smtpd_use_tls
        postscreen_watchdog_timeout = 10s
        postscreen_whitelist_interfaces =
    """),
    *group(Kind.HARMLESS, "Belongs to tlsproxy(8), which is not part of this program.", """
        tlsproxy_client_CAfile = $smtp_tls_CAfile
        tlsproxy_client_CApath = $smtp_tls_CApath
        tlsproxy_client_cert_file = $smtp_tls_cert_file
        tlsproxy_client_chain_files = $smtp_tls_chain_files
        tlsproxy_client_dcert_file = $smtp_tls_dcert_file
        tlsproxy_client_dkey_file = $smtp_tls_dkey_file
        tlsproxy_client_eccert_file = $smtp_tls_eccert_file
        tlsproxy_client_eckey_file = $smtp_tls_eckey_file
        tlsproxy_client_enable_rpk = no
        tlsproxy_client_enforce_tls = $smtp_enforce_tls
        tlsproxy_client_fingerprint_digest = $smtp_tls_fingerprint_digest
        tlsproxy_client_key_file = $smtp_tls_key_file
        tlsproxy_client_level =
        tlsproxy_client_loglevel = $smtp_tls_loglevel
        tlsproxy_client_loglevel_parameter = smtp_tls_loglevel
        tlsproxy_client_per_site = $smtp_tls_per_site
        tlsproxy_client_policy =
        tlsproxy_client_policy_maps = ${tlsproxy_client_policy:$smtp_tls_policy_maps}
        tlsproxy_client_scert_verifydepth = $smtp_tls_scert_verifydepth
        tlsproxy_client_security_level = ${tlsproxy_client_level:$smtp_tls_security_level}
        tlsproxy_client_use_tls = $smtp_use_tls
        tlsproxy_enforce_tls = $smtpd_enforce_tls
        tlsproxy_service_name = tlsproxy
        tlsproxy_tls_CAfile = $smtpd_tls_CAfile
        tlsproxy_tls_CApath = $smtpd_tls_CApath
        tlsproxy_tls_always_issue_session_ids = $smtpd_tls_always_issue_session_ids
        tlsproxy_tls_ask_ccert = $smtpd_tls_ask_ccert
        tlsproxy_tls_ccert_verifydepth = $smtpd_tls_ccert_verifydepth
        tlsproxy_tls_cert_file = $smtpd_tls_cert_file
        tlsproxy_tls_chain_files = $smtpd_tls_chain_files
        tlsproxy_tls_ciphers = $smtpd_tls_ciphers
        tlsproxy_tls_dcert_file = $smtpd_tls_dcert_file
        tlsproxy_tls_dh1024_param_file = $smtpd_tls_dh1024_param_file
        tlsproxy_tls_dh512_param_file = $smtpd_tls_dh512_param_file
        tlsproxy_tls_dkey_file = $smtpd_tls_dkey_file
        tlsproxy_tls_eccert_file = $smtpd_tls_eccert_file
        tlsproxy_tls_eckey_file = $smtpd_tls_eckey_file
        tlsproxy_tls_eecdh_grade = $smtpd_tls_eecdh_grade
        tlsproxy_tls_enable_rpk = no
        tlsproxy_tls_exclude_ciphers = $smtpd_tls_exclude_ciphers
        tlsproxy_tls_fingerprint_digest = $smtpd_tls_fingerprint_digest
        tlsproxy_tls_key_file = $smtpd_tls_key_file
        tlsproxy_tls_loglevel = $smtpd_tls_loglevel
        tlsproxy_tls_mandatory_ciphers = $smtpd_tls_mandatory_ciphers
        tlsproxy_tls_mandatory_exclude_ciphers = $smtpd_tls_mandatory_exclude_ciphers
        tlsproxy_tls_mandatory_protocols = $smtpd_tls_mandatory_protocols
        tlsproxy_tls_protocols = $smtpd_tls_protocols
        tlsproxy_tls_req_ccert = $smtpd_tls_req_ccert
        tlsproxy_tls_security_level = $smtpd_tls_security_level
        tlsproxy_use_tls = $smtpd_use_tls
        tlsproxy_watchdog_timeout = 10s
    """),
    *group(Kind.HARMLESS, "Belongs to the QMQP server, which is not part of this program.", """
        qmqpd_authorized_clients =
        qmqpd_client_port_logging = no
        qmqpd_error_delay = 1s
        qmqpd_timeout = 300s
    """),
    *group(Kind.HARMLESS, "Tunes a session with an LMTP server in a way that this program does not need.", """
        lmtp_assume_final = no
        lmtp_discard_lhlo_keyword_address_maps =
        lmtp_discard_lhlo_keywords =
    """),
    *group(Kind.HARMLESS, "Belongs to ETRN and fast flush; the queue is one and is flushed whole.", """
        fast_flush_domains = $relay_domains
        fast_flush_purge_time = 7d
        fast_flush_refresh_time = 12h
        flush_service_name = flush
    """),
    *group(
        Kind.HARMLESS,
        "Tunes the scheduler of qmgr(8); ours has default_destination_concurrency_limit and its relatives.",
        """
        default_delivery_slot_cost = 5
        default_delivery_slot_discount = 50
        default_delivery_slot_loan = 3
        default_destination_concurrency_failed_cohort_limit = 1
        default_destination_concurrency_negative_feedback = 1
        default_destination_concurrency_positive_feedback = 1
        default_destination_rate_delay = 0s
        default_extra_recipient_limit = 1000
        default_filter_nexthop =
        default_minimum_delivery_slots = 3
        default_recipient_limit = 20000
        default_recipient_refill_delay = 5s
        default_recipient_refill_limit = 100
        default_transport_rate_delay = 0s
        destination_concurrency_feedback_debug = no
        qmgr_clog_warn_time = 300s
        qmgr_daemon_timeout = 1000s
        qmgr_fudge_factor = 100
        qmgr_ipc_timeout = 60s
        qmgr_message_recipient_minimum = 10
        transport_retry_time = 60s
        """,
    ),
    *group(Kind.INERT, "Says where parts of Postfix are installed.", """
        alternate_config_directories =
        command_directory = /usr/sbin
        cyrus_sasl_config_path =
        daemon_directory = /usr/lib/postfix/sbin
        data_directory = /var/lib/postfix
        html_directory = /usr/share/doc/postfix/html
        mail_release_date = 20240304
        mailq_path = /usr/bin/mailq
        manpage_directory = /usr/share/man
        meta_directory = /etc/postfix
        newaliases_path = /usr/bin/newaliases
        openssl_path = openssl
        process_id_directory = pid
        readme_directory = /usr/share/doc/postfix
        sample_directory = /etc/postfix
        sendmail_path = /usr/sbin/sendmail
        shlib_directory = /usr/lib/postfix
    """),
    *group(Kind.INERT, "Tunes or names the processes of Postfix, which are not there.", """
        anvil_status_update_time = 600s
        application_event_drain_time = 100s
        backwards_bounce_logfile_compatibility = yes
        berkeley_db_create_buffer_size = 16777216
        berkeley_db_read_buffer_size = 131072
        bounce_service_name = bounce
        cleanup_service_name = cleanup
        connection_cache_protocol_timeout = 5s
        connection_cache_service_name = scache
        connection_cache_status_update_time = 600s
        connection_cache_ttl_limit = 2s
        daemon_timeout = 18000s
        debug_peer_level = 2
        debug_peer_list =
        debugger_command =
        defer_service_name = defer
        dont_remove = 0
        error_service_name = error
        fault_injection_code = 0
        fork_attempts = 5
        fork_delay = 1s
        hash_queue_depth = 1
        hash_queue_names = deferred, defer
        helpful_warnings = yes
        ipc_idle = 5s
        ipc_timeout = 3600s
        ipc_ttl = 1000s
        max_idle = 100s
        max_use = 100
        multi_instance_group =
        multi_instance_wrapper =
        pickup_service_name = pickup
        postlog_service_name = postlog
        postlogd_watchdog_timeout = 10s
        postmulti_control_commands = reload flush
        postmulti_start_commands = start
        postmulti_stop_commands = stop abort drain quick-stop
        process_id =
        process_name = mailserver
        proxy_read_maps =
        proxy_write_maps =
        proxymap_service_name = proxymap
        proxywrite_service_name = proxywrite
        queue_service_name = qmgr
        rewrite_service_name = rewrite
        send_cyrus_sasl_authzid = no
        service_name =
        service_throttle_time = 60s
        showq_service_name = showq
        smtp_tls_session_cache_database =
        smtp_tls_session_cache_timeout = 3600s
        smtpd_sasl_application_name =
        smtpd_sasl_service = smtp
        smtpd_service_name = smtpd
        smtpd_tls_session_cache_database =
        smtpd_tls_session_cache_timeout = 3600s
        tcp_windowsize = 0
        tls_config_file = default
        tls_config_name =
        tls_daemon_random_bytes = 32
        tls_fast_shutdown_enable = yes
        tls_random_bytes = 32
        tls_random_exchange_name = ${data_directory}/prng_exch
        tls_random_prng_update_period = 3600s
        tls_random_reseed_period = 3600s
        tls_random_source = dev:/dev/urandom
        tls_wildcard_matches_multiple_labels = yes
        tlsmgr_service_name = tlsmgr
        trace_service_name = trace
        trigger_timeout = 10s
    """),
)
# fmt: on
