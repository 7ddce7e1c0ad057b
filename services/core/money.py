"""Currencies and countries: the closed lists that a transaction is validated against, in packed columns.

Source: ISO 4217 (active codes and their minor-unit exponents) and ISO 3166-1 alpha-2.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from services.core.columns import pack_code, type_f64, type_i64

_EXPONENT_2 = """
AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP CVE CZK
DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD
KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP
PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH
USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG
"""
_EXPONENT_0 = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_EXPONENT_3 = "BHD IQD JOD KWD LYD OMR TND"
_COUNTRIES = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD
CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF
GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN
KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA
NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI
SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI
VN VU WF WS XK YE YT ZA ZM ZW
"""

EXPONENTS: Final[dict[str, int]] = (
    dict.fromkeys(_EXPONENT_2.split(), 2)
    | dict.fromkeys(_EXPONENT_0.split(), 0)
    | dict.fromkeys(_EXPONENT_3.split(), 3)
)
"""Currency code to the number of decimal digits of its minor unit."""

_CURRENCY_CODES = np.array(sorted(pack_code(code) for code in EXPONENTS), np.int64)
_CURRENCY_SCALES = np.array([10.0 ** EXPONENTS[c] for c in sorted(EXPONENTS)])
COUNTRIES: Final = frozenset(_COUNTRIES.split())
_COUNTRY_CODES = np.array(sorted(pack_code(code) for code in COUNTRIES), np.int64)


@njit(cache=True, nogil=True)
def is_currency(code: int) -> bool:
    """Whether a packed code is a currency."""
    at = np.searchsorted(_CURRENCY_CODES, code)
    return bool(at < len(_CURRENCY_CODES) and _CURRENCY_CODES[at] == code)


@njit(cache=True, nogil=True)
def is_country(code: int) -> bool:
    """Whether a packed code is a country (XK, Kosovo's user-assigned code that cards use, included)."""
    at = np.searchsorted(_COUNTRY_CODES, code)
    return bool(at < len(_COUNTRY_CODES) and _COUNTRY_CODES[at] == code)


@njit(cache=True, nogil=True)
def scales_of(codes: type_i64) -> type_f64:
    """Return how many minor units a major one of each packed currency code has; the codes must be known."""
    out = np.empty(len(codes))
    code, scale = np.int64(0), np.nan
    for i in range(len(codes)):
        if codes[i] != code:  # there is hardly ever more than one
            code = codes[i]
            scale = _CURRENCY_SCALES[np.searchsorted(_CURRENCY_CODES, code)]
        out[i] = scale
    return out


def format_amount(amount_minor: int, currency: str) -> str:
    """Return an amount as people write it, such as ``412.00 EUR``."""
    exponent = EXPONENTS[currency]
    whole, rest = divmod(amount_minor, 10**exponent)
    return f"{whole:,}.{rest:0{exponent}d} {currency}" if exponent else f"{whole:,} {currency}"
