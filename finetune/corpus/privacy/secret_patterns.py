"""What the scanner looks for beside its built-in rules.

`KNOWN` have a form of their own. Built-in rules know most of them too, but insist on exact lengths,
words nearby or rare characters; these do not. `MAYBE` only mark places: the first captured bytes
are where a value starts, and `secret_values` judges it. There is no look-around, so that all run on
Vectorscan in one pass; candidates are few, 2 in 1,000 lines of Python.
"""

KNOWN = {
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
    "aws-key-id": r"\b((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})\b",
    # https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string
    "azure-key": r"(?i)(?:Account|SharedAccess)Key=([a-z0-9+/]{40,100}={0,2})",
    # https://github.blog/2021-04-05-behind-githubs-new-authentication-token-formats/
    "github-token": r"\b(gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_\w{40,255})",
    # https://docs.gitlab.com/security/tokens/#token-prefixes
    "gitlab-token": r"\b(gl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[\w.-]{20,300})",
    # https://docs.slack.dev/authentication/tokens
    "slack-token": r"\b(xox[a-z](?:\.xox[a-z])?-[\w-]{20,300}|xapp-[\w-]{20,300})",
    "slack-webhook": r"hooks\.slack\.com/(?:services|workflows|triggers)/([\w/]{20,200})",
    # https://docs.discord.com/developers/reference#authentication
    "discord-token": r"\b([MNO][\w-]{22,27}\.[\w-]{5,8}\.[\w-]{26,42})",
    "discord-webhook": r"discord(?:app)?\.com/api/webhooks/(\d{10,25}/[\w-]{40,100})",
    # https://core.telegram.org/bots/api#authorizing-your-bot
    "telegram-token": r"\b(\d{8,10}:[\w-]{34,36})\b",
    # https://docs.stripe.com/keys
    "stripe-key": r"\b([rs]k_(?:live|test|prod)_[A-Za-z0-9]{16,250}|whsec_[\w+/=]{24,100})",
    # https://cloud.google.com/docs/authentication/api-keys
    "google-key": r"\b(AIza[\w-]{35}|ya29\.[\w-]{30,300}|GOCSPX-[\w-]{24,40})",
    "openai-key": r"\b(sk-(?:proj|svcacct|admin|or-v1)-[\w-]{20,300}|sk-[A-Za-z0-9]{32,64})",
    "anthropic-key": r"\b(sk-ant-[\w-]{32,200})",
    "huggingface-token": r"\b((?:hf|api_org)_[A-Za-z0-9]{30,64})\b",
    "npm-token": r"\b(npm_[A-Za-z0-9]{30,64})\b",
    # https://pypi.org/help/#apitoken
    "pypi-token": r"\b(pypi-[\w-]{50,300})",
    "sendgrid-key": r"\b(SG\.[\w-]{16,32}\.[\w-]{32,64})",
    # https://www.twilio.com/docs/iam/api-keys
    "twilio-key": r"\b((?:SK|AC)[0-9a-f]{32})\b",
    "mailgun-key": r"\b(key-[0-9a-f]{32})\b",
    "digitalocean-token": r"\b(do[opr]_v1_[0-9a-f]{40,64})",
    "shopify-token": r"\b(shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32})\b",
    "artifactory-token": r"\b(AKCp\d[A-Za-z0-9]{60,80})",
    "mailchimp-key": r"\b([0-9a-f]{32}-us\d{1,2})\b",
    "square-token": r"\b(sq0[a-z]{3}-[\w-]{22,43}|EAAA[\w-]{60})",
    # https://learn.microsoft.com/azure/storage/common/storage-sas-overview
    "azure-signature": r"[?&]sig=([A-Za-z0-9%+/]{43,80}(?:%3D|=))",
    "azure-client-secret": r"\b([\w~.-]{3}\dQ~[\w~.-]{31,34})",
    "teams-webhook": r"\.webhook\.office\.com/webhookb2/([\w@-]{36,80}"
    r"/IncomingWebhook/[\w/-]{32,80})",
    "alibaba-key-id": r"\b(LTAI[A-Za-z0-9]{16,24})\b",
    "notion-token": r"\b(secret_[A-Za-z0-9]{43})\b",
    "new-relic-key": r"\b(NRAK-[A-Z0-9]{27})\b",
    "dropbox-token": r"\b(sl\.[\w-]{100,300})",
    "mapbox-token": r"\b(sk\.eyJ[\w-]{40,200}\.[\w-]{20,40})",
    "databricks-token": r"\b(dapi[0-9a-f]{32}(?:-\d)?)\b",
    "vault-token": r"\b(hv[sbr]\.[\w-]{24,300})",
    "prefixed-key": r"\b((?:lin_api|ntn|figd|rnd|pul|dckr_pat|glc|sntrys|sbp|gsk|pplx|r8|xai|nvapi)"
    r"[_-][A-Za-z0-9]{32,200})\b",
    # RFC 7519
    "jwt": r"\b(eyJ[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{8,2000})",
}
_PASSWORD = r"(?i)(?:pass(?:word|wd|phrase|code)|pwd|\bpass|_pass)"
_SECRET = (
    r"(?i)(?:secret|token|credential|api[_. -]?key|apikey|(?:access|account|private|encryption"
    r"|signing|shared|master|auth)[_. -]?key)"
)
_KEY = r"(?i)(?:_key|[a-z]key|\bkey|auth)"
# name = "value", "name": "value", name: str = "value", name("value"), put("name", "value"),
# name: &'static str = "value", name string = "value"
_QUOTED = (
    r"[\w.-]{0,30}\\?[\"'`\])]{0,3}[ \t]{0,20}(?::[ \t]?[\w\[\]. |?&'<>]{1,24}|string[ \t])?"
    r"(?:[=:(,]|=>|:=|==)[ \t]{0,20}[a-zA-Z@]{0,2}\\?[\"'`]([^\s\"'`]{4})"
)
# name: value, NAME=value, "Server=db;Password=value;", ?token=value&, <password>value</password>
_BARE = r"[\w.-]{0,30}(?:[ \t]{0,20}[=:][ \t]{0,20}|[ \t]is[ \t]|>)([^\s\"'`(){}<>\[\],;&]{4})"
MAYBE = {
    # RFC 7468, RFC 9580
    "private-key": r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----)",
    # RFC 3986 section 3.2.1, user:password@host
    "uri": r"(?i)\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"'`<>]{0,80}:([^\s/@\"'`<>]{3,120})@[\w.\[-]",
    "header": r"(?i)\b(?:bearer|basic)[ :]{1,2}([a-z0-9+/_.=-]{16,400})",
    "password-quoted": _PASSWORD + _QUOTED,
    "password-bare": _PASSWORD + _BARE,
    "secret-quoted": _SECRET + _QUOTED,
    "secret-bare": _SECRET + _BARE,
    "key-quoted": _KEY + _QUOTED,
    # No name at all, but what people take for a password: summer2024!, Admin@123, P@ssw0rd
    "password-alone-1": r"[\"']([A-Za-z0-9][A-Za-z0-9@$]{2,15}\d{1,8}[!@#$%&?]{1,3})\\?[\"']",
    "password-alone-2": r"[\"']([A-Za-z]{4,16}[!@#$%&?]\d{2,8}[!@#$]{0,2})\\?[\"']",
    "password-alone-3": r"(?:[=:]|#|//)[ \t]?([A-Za-z0-9][A-Za-z0-9@$]{2,15}\d{1,8}[!@#$]{1,3})"
    r"\r?(?:\n|$)",
    "password-alone-5": r"[\"']([A-Za-z0-9!@#$%^&*?]{10,24})[\"']",
    "password-alone-4": r"(?i)[\"'`](p[a@4][s$5]{2}w[o0]rd[0-9!@#$%]{0,8}|qwerty\d{1,6}"
    r"|letmein\d{0,6}|trustno1|iloveyou\d{0,4}|hunter2|admin123\d{0,3})[\"'`]",
    # <add key="password" value="value"/>, - name: PASSWORD, then value: value
    "password-pair": _PASSWORD + r"[\w.-]{0,30}[\"']?,?\s{1,20}[\"']?value[\"']?\s?[=:]\s?[\"']?"
    r"([^\s\"'`(){}<>\[\],;&]{4})",
    "password-argument": r"(?i)(?:log_?in|connect|authenticate|auth|sign_?in|credentials?)"
    r"\([^()\n]{0,120}[\"']([a-z]{3,16}\d{1,8})[\"']",
    # No name at all, but no words in it either
    "random-1": r"(?:[\"'`=]|[=:#*/;-] )([A-Za-z0-9+/_-]{31})",
    "random-2": r"(?:[\"'`=]|[=:#*/;-] )([a-z0-9]{31})",
    "random-comment-1": r"(?:#|//|\*)[ \w,.:-]{1,60} ([A-Za-z0-9+/]{31})",
    "random-comment-2": r"(?:#|//|\*)[ \w,.:-]{1,60} ([a-z0-9]{60})",
}
_MIXED = {"min_digits": 1, "min_lowercase": 2, "min_uppercase": 2}
_LOWER = {"min_digits": 4, "min_lowercase": 4}
CHARACTERS = {
    "password-alone-5": _MIXED | {"min_special_chars": 1, "special_chars": "!@#$%^&*?"},
    "random-1": _MIXED,
    "random-2": _LOWER,
    "random-comment-1": _MIXED,
    "random-comment-2": _LOWER,
}
"""What a candidate must hold, checked before it is reported."""


def make_rules() -> dict[str, list[dict]]:
    """Return the patterns as the scanner's rule file has them; `maybe.` and `known.` start ids."""
    rows = [("known." + kind, pattern) for kind, pattern in KNOWN.items()]
    rows += [("maybe." + kind, pattern) for kind, pattern in MAYBE.items()]
    return {
        "rules": [
            {
                "id": rule,
                "name": rule,
                "pattern": pattern,
                "min_entropy": 0.0,
                "pattern_requirements": CHARACTERS.get(rule.removeprefix("maybe."), {}),
            }
            for rule, pattern in rows
        ]
    }
