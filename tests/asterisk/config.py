"""The test Asterisk's configuration files: only what the tests need, only on 127.0.0.1."""

from pathlib import Path
from string import Template
from typing import NamedTuple


class Ports(NamedTuple):
    """What Asterisk listens on; all on 127.0.0.1."""

    ami: int
    http: int
    sip: int
    rtp_first: int
    rtp_last: int


_MODULES = """
    app_audiosocket app_dial app_echo app_exec app_milliwatt app_playback app_record app_senddtmf
    app_stack app_stasis app_userevent app_verbose
    bridge_builtin_features bridge_simple bridge_softmix
    chan_audiosocket chan_bridge_media chan_pjsip chan_websocket
    codec_a_mu codec_alaw codec_g722 codec_resample codec_ulaw
    format_pcm format_sln format_wav
    func_callerid func_channel func_curl func_global func_hangupcause func_logic func_shell
    func_strings func_uri func_uuid
    pbx_config
    res_ari res_ari_applications res_ari_asterisk res_ari_bridges res_ari_channels
    res_ari_device_states res_ari_endpoints res_ari_events res_ari_model res_ari_playbacks
    res_ari_recordings res_ari_sounds
    res_audiosocket res_curl res_http_websocket res_musiconhold
    res_pjproject res_pjsip res_pjsip_caller_id res_pjsip_endpoint_identifier_ip
    res_pjsip_pubsub res_pjsip_sdp_rtp res_pjsip_session
    res_rtp_asterisk res_sorcery_astdb res_sorcery_config res_sorcery_memory
    res_stasis res_stasis_answer res_stasis_device_state res_stasis_playback res_stasis_recording
    res_stasis_snoop
    res_timing_timerfd res_websocket_client
""".split()

# Template's $-words are filled in by write_config().
_FILES = {
    "asterisk.conf": """
[directories]
astetcdir => $inside/etc
astdbdir => $inside/state
astkeydir => $inside/state
astspooldir => $inside/spool
astrundir => $inside/run
astlogdir => $inside/log

[options]
nocolor = yes
""",
    "modules.conf": """
[modules]
autoload = no
$modules
""",
    "logger.conf": """
[logfiles]
messages => notice,warning,error,verbose(3)
""",
    "manager.conf": """
[general]
enabled = yes
bindaddr = 127.0.0.1
port = $ami

[test]
secret = test
deny = 0.0.0.0/0.0.0.0
permit = 127.0.0.1/255.255.255.255
read = all
write = all
""",
    "http.conf": """
[general]
enabled = yes
bindaddr = 127.0.0.1
bindport = $http
""",
    "ari.conf": """
[general]
enabled = yes

[test]
type = user
password = test
""",
    "rtp.conf": """
[general]
rtpstart = $rtp_first
rtpend = $rtp_last
""",
    # Phones on this machine, without registration; the length of their packets is their choice.
    "pjsip.conf": """
[udp]
type = transport
protocol = udp
bind = 127.0.0.1:$sip

[phone]
type = endpoint
context = phones
disallow = all
allow = ulaw
direct_media = no
media_address = 127.0.0.1
bind_rtp_to_media_address = yes
timers = no

[phone]
type = identify
endpoint = phone
match = 127.0.0.1
""",
    "extensions.conf": "",
}


def write_config(directory: Path, inside: str, ports: Ports) -> None:
    """Write the configuration below ``directory``, which Asterisk itself sees as ``inside``."""
    for name in ("etc", "state", "spool", "run", "log"):
        (directory / name).mkdir(exist_ok=True)
    modules = "\n".join(f"load = {name}.so" for name in _MODULES)
    values = {"inside": inside, "modules": modules, **ports._asdict()}
    for name, text in _FILES.items():
        (directory / "etc" / name).write_text(Template(text).substitute(values))
