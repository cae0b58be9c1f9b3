"""What this program does not do: refused where mail would go another way, harmless elsewhere."""

# ruff: noqa: E501 - defaults are as long as they are

from __future__ import annotations

from typing import Final

from mailserver.config.declaration import Kind, group

# fmt: off
PARAMETERS: Final = (
    *group(
        Kind.REFUSED,
        "Filters mail in a way that this program does not do: unfiltered mail would be delivered.",
        """
        internal_mail_filter_classes =
        milter_header_checks =
        """,
    ),
    *group(
        Kind.REFUSED,
        "Inspects content, which this program does not do: mail that it rejects would be delivered.",
        """
        message_reject_characters =
        message_strip_characters =
        """,
    ),
    *group(
        Kind.REFUSED,
        "Delivers mail some other way than to a mailbox of this host, which this program does not do.",
        """
        best_mx_transport =
        use_srv_lookup =
        """,
    ),
    *group(Kind.REFUSED, "Old: virtual_alias_maps and virtual_alias_domains.", """
        virtual_maps =
    """),
    *group(Kind.REFUSED, "Decides over clients and recipients in a way that this program does not know.", """
        default_delivery_status_filter =
        local_delivery_status_filter = $default_delivery_status_filter
        local_login_sender_maps = static:*
        maps_rbl_domains =
        permit_mx_backup_networks =
        pipe_delivery_status_filter = $default_delivery_status_filter
        smtp_delivery_status_filter = $default_delivery_status_filter
        smtp_dns_reply_filter =
        smtp_reply_filter =
        smtpd_command_filter =
        smtpd_dns_reply_filter =
        smtpd_upstream_proxy_protocol =
        virtual_delivery_status_filter = $default_delivery_status_filter
    """),
    *group(Kind.REFUSED, "Takes raw public keys instead of certificates, which this program does not do.", """
        smtpd_tls_enable_rpk = no
    """),
    *group(Kind.REFUSED, "Demands of other hosts' certificates what this program does not check.", """
        smtp_tls_dcert_file =
        smtp_tls_enable_rpk = no
        smtp_tls_enforce_peername = yes
        smtp_tls_fingerprint_cert_match =
        smtp_tls_per_site =
        smtp_tls_servername =
        smtp_tls_trust_anchor_file =
    """),
    *group(Kind.REFUSED, "Runs several instances of Postfix.", """
        master_service_disable =
        multi_instance_directories =
        multi_instance_enable = no
    """),
    *group(
        Kind.HARMLESS,
        "Chooses ciphers; TLS here is 1.2 or newer with forward secrecy and authenticated encryption.",
        """
        smtp_tls_block_early_mail_reply = no
        smtp_tls_ciphers = medium
        smtp_tls_dkey_file = $smtp_tls_dcert_file
        smtp_tls_exclude_ciphers =
        smtp_tls_fingerprint_digest = ${{$compatibility_level} <level {3.6} ? {md5} : {sha256}}
        smtp_tls_mandatory_ciphers = medium
        smtp_tls_mandatory_exclude_ciphers =
        smtp_tls_scert_verifydepth = 9
        smtpd_tls_always_issue_session_ids = yes
        smtpd_tls_ciphers = medium
        smtpd_tls_dcert_file =
        smtpd_tls_dh1024_param_file =
        smtpd_tls_dh512_param_file =
        smtpd_tls_dkey_file = $smtpd_tls_dcert_file
        smtpd_tls_eecdh_grade = auto
        smtpd_tls_exclude_ciphers =
        smtpd_tls_mandatory_ciphers = medium
        smtpd_tls_mandatory_exclude_ciphers =
        tls_disable_workarounds =
        tls_eecdh_auto_curves = X25519 X448 prime256v1 secp521r1 secp384r1
        tls_eecdh_strong_curve = prime256v1
        tls_eecdh_ultra_curve = secp384r1
        tls_export_cipherlist = aNULL:-aNULL:HIGH:MEDIUM:LOW:EXPORT:+RC4:@STRENGTH
        tls_ffdhe_auto_groups = ffdhe2048 ffdhe3072
        tls_high_cipherlist = aNULL:-aNULL:HIGH:@STRENGTH
        tls_legacy_public_key_fingerprints = no
        tls_low_cipherlist = aNULL:-aNULL:HIGH:MEDIUM:LOW:+RC4:@STRENGTH
        tls_medium_cipherlist = aNULL:-aNULL:HIGH:MEDIUM:+RC4:@STRENGTH
        tls_null_cipherlist = eNULL:!aNULL
        tls_preempt_cipherlist = no
        tls_session_ticket_cipher = aes-256-cbc
        tls_ssl_options =
        """,
    ),
    *group(Kind.HARMLESS, "Changes or explains replies and notices; ours have their own texts.", """
        enable_threaded_bounces = no
        header_from_format = standard
        info_log_address_format = external
        rbl_reply_maps =
        respectful_logging = ${{$compatibility_level} <level {3.6} ? {no} : {yes}}
        smtpd_client_port_logging = no
        smtpd_log_access_permit_actions =
        smtpd_reject_footer =
        smtpd_reject_footer_maps =
    """),
    *group(
        Kind.HARMLESS,
        "Probes addresses another way than mail goes, or keeps what was found in a file; ours is in memory.",
        """
        address_verify_cache_cleanup_interval = 12h
        address_verify_default_transport = $default_transport
        address_verify_local_transport = $local_transport
        address_verify_map = btree:$data_directory/verify_cache
        address_verify_relay_transport = $relay_transport
        address_verify_relayhost = $relayhost
        address_verify_sender_dependent_default_transport_maps = $sender_dependent_default_transport_maps
        address_verify_sender_dependent_relayhost_maps = $sender_dependent_relayhost_maps
        address_verify_sender_ttl = 0s
        address_verify_service_name = verify
        address_verify_transport_maps = $transport_maps
        address_verify_virtual_transport = $virtual_transport
        smtp_address_verify_target = rcpt
        unverified_recipient_tempfail_action = $reject_tempfail_action
        unverified_sender_tempfail_action = $reject_tempfail_action
        """,
    ),
    *group(Kind.HARMLESS, "Belongs to a proxy, none of which is asked.", """
        smtpd_upstream_proxy_timeout = 5s
    """),
    *group(
        Kind.HARMLESS,
        "Tells how strictly MIME and addresses in header fields are read; content is passed on as it came.",
        """
        cleanup_replace_stray_cr_lf = yes
        detect_8bit_encoding_header = yes
        disable_mime_input_processing = no
        disable_mime_output_conversion = no
        force_mime_input_conversion = no
        header_address_token_limit = 10240
        mime_boundary_length_limit = 2048
        strict_7bit_headers = no
        strict_8bitmime = no
        strict_8bitmime_body = no
        strict_mime_encoding_domain = no
        strict_smtputf8 = no
        """,
    ),
    *group(Kind.HARMLESS, "Rewrites or reads addresses as hosts of the last century did.", """
        allow_percent_hack = yes
        empty_address_default_transport_maps_lookup_key = <>
        empty_address_local_login_sender_maps_lookup_key = <>
        empty_address_relayhost_maps_lookup_key = <>
        resolve_dequoted_address = yes
        resolve_null_domain = no
        sun_mailtool_compatibility = no
        swap_bangpath = yes
    """),
    *group(Kind.HARMLESS, "Numbers the copies of a message for VERP, which is not supported.", """
        authorized_verp_clients =
        default_verp_delimiters = +=
        disable_verp_bounces = no
        smtpd_authorized_verp_clients = $authorized_verp_clients
        verp_delimiter_filter = -=+
    """),
    *group(Kind.HARMLESS, "Tunes a session with another host in a way that this program does not need.", """
        allow_srv_lookup_fallback = no
        dns_ncache_ttl_fix_enable = no
        dnssec_probe = ns:.
        ignore_srv_lookup_error = no
        smtp_always_send_ehlo = yes
        smtp_bind_address_enforce = no
        smtp_cname_overrides_servername = no
        smtp_connection_cache_destinations =
        smtp_connection_reuse_count_limit = 0
        smtp_discard_ehlo_keyword_address_maps =
        smtp_discard_ehlo_keywords =
        smtp_dns_resolver_options =
        smtp_min_data_rate = 500
        smtp_never_send_ehlo = no
        smtp_per_record_deadline =
        smtp_per_request_deadline = ${smtp_per_record_deadline?{$smtp_per_record_deadline}:{no}}
        smtp_pix_workaround_delay_time = 10s
        smtp_pix_workaround_maps =
        smtp_pix_workaround_threshold_time = 500s
        smtp_pix_workarounds = disable_esmtp,delay_dotcrlf
        smtp_quote_rfc821_envelope = yes
        smtp_sasl_auth_cache_name =
        smtp_sasl_auth_cache_time = 90d
        smtp_sasl_auth_soft_bounce = yes
        smtp_sasl_path =
        smtp_sasl_tls_verified_security_options = $smtp_sasl_tls_security_options
        smtp_send_dummy_mail_auth = no
        smtp_tls_connection_reuse = no
        smtp_tlsrpt_enable = no
        smtp_tlsrpt_skip_reused_handshakes = yes
        smtp_tlsrpt_socket_name =
        tls_required_enable = yes
    """),
    *group(Kind.HARMLESS, "Limits or counts in a way that this program does not know; its own limits hold.", """
        daemon_table_open_error_is_fatal = no
        enable_idna2003_compatibility = no
        full_name_encoding_charset = utf-8
        in_flow_delay = 1s
        queue_file_attribute_count_limit = 100
        sendmail_fix_line_endings = always
        smtpd_client_connection_limit_exceptions =
        smtpd_client_ipv4_prefix_length = 32
        smtpd_client_ipv6_prefix_length = 84
        smtpd_client_new_tls_session_rate_limit = 0
        smtpd_delay_open_until_valid_rcpt = yes
        smtpd_discard_ehlo_keyword_address_maps =
        smtpd_expansion_filter =
        smtpd_hide_client_session = no
        smtpd_history_flush_threshold = 100
        smtpd_noop_commands =
        smtpd_per_record_deadline =
        smtpd_sasl_response_limit = 12288
        smtputf8_autodetect_classes = sendmail, verify
        virtual_mailbox_lock = fcntl, dotlock
        virtual_minimum_uid = 100
    """),
)
# fmt: on
