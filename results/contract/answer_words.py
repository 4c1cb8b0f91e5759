"""The words by which written answers are read, in the languages that models answer in.

Latin words are compared whole and in lower case. Words of scripts that are written without spaces
are searched inside a run of that script, so `正确` is found in `是正确的`.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ANSWER = _words("""
    answer answers ans response solution conclusion guess prediction respuesta
    contestación réponse reponse antwort lösung resposta risposta antwoord
    svar svaret vastaus válasz vastus atsakymas atbilde odgovor jibu
    sagot απάντηση תשובה התשובה پاسخ উত্তর பதில் సమాధానం отговор отговорът
    odpowiedź odpowiedz cevap yanıt jawaban jawabannya đáp
    răspunsul odpověď 答案 答え 回答 解答 正解 答 정답 답 ответ відповідь उत्तर जवाब الإجابة
    الاجابة الجواب إجابة คำตอบ ตอบ
""")
"""Nouns that announce the answer."""

OPTION = _words("""
    option options choice letter alternative candidate opción opcion letra
    opciones choix lettre wahl buchstabe auswahl opção opcao alternativa
    opzione scelta lettera optie keuze alternativet opcja seçenek şık pilihan
    opsi án lựa 选项 選項 项 項 選択肢 選択 선택지 보기 번 вариант вариантом विकल्प الخيار ข้อ
    ตัวเลือก
""")
"""Nouns for an option."""

CHOOSE = _words("""
    lean leaning inclined choose chose select selected pick picked go going
    say vote opt choosing selecting settle meant elijo elegir elegiría escojo
    selecciono choisis choisirais sélectionne wähle wählen nehme escolho
    seleciono scelgo kies wybieram seçiyorum memilih chọn 选 選 选择 選擇 选择了 選び 선택
    고르 выбираю выберу चुन أختار اختار เลือก
""")
"""Verbs that choose."""

CONCLUDE = _words("""
    therefore thus hence so consequently accordingly finally ultimately
    conclude leaving leaves luego ergo donc ainsi folglich daher deshalb somit
    portanto logo quindi dunque dus 因此 所以 故 综上 よって したがって 따라서 그러므로 поэтому
    следовательно значит अतः इसलिए إذن لذلك ดังนั้น
""")
"""Words that draw a conclusion."""

LINK = _words("""
    also is are was be being been it it's its that that's this this's the to i
    i'd i'll i'm i' we we'll we'd let's let us think believe would will should
    must with for as say my your our probably likely most certainly definitely
    clearly simply just surely again here here's best correct right true final
    only one well okay ok sure yes hmm actual in by based of es la el lo las
    los mi sería seria ser creo que pienso est le c'est serait je pense ma ce
    ist die der das ist's glaube ich denke meine wäre wohl é a o eu acho será
    è il penso credo het de ik denk är det jag tror jest on myślę bu adalah
    ialah yang là phải richtig correcta correcto correcte bonne bon richtige
    correta correto corretta giusta juiste benar doğru đúng poprawna tepat
    er brzmi jest este yra je ay είναι היא הוא است হলো হল е rétt
    mejor meilleure beste melhor migliore 是 为 為 应 應 は が を : 은 는 이 가 это - है
    هي هو คือ 我认为 觉得 правильный верный सही الصحيحة الصحيح
""")
"""Copulas, articles and other words that may stand between a cue and the option."""

COPULA = _words("""
    is are was were be lautet seems seem appears looks would could should can
    must does do did will es son est sont ist sind é são è sono zijn är isn't
    aren't can't cannot doesn't er jest este yra je
""")

PREDICATE = _words("""
    correct right true yes ✅ ✓ ✔ best answer accurate fits fit matches match
    describes appropriate better chosen reasonable richtig korrekt correcta
    correcto vraie correcte exacte bonne correta certo correto giusta corretta
    juist doğru benar đúng poprawna poprawne poprawny rätt riktigt riktig
    rett oikein správně corect corectă likely
    stimmt 正确 正確 正しい 正解 对 對 最佳 合适 符合 答案 선택 정답
    맞 верно верный правильно правильный правилен подходит सही صحيح صحيحة
    الصحيحة الصحيح ถูก です 입니다 だ है
""")
"""Predicates of the right option, as in "B is correct"."""

NEGATION = _words("""
    doubt doubts doubtful disagree hardly fails fail lacks less least
    not no nor neither never cannot without except don't none nothing ruled
    rule ruling eliminate eliminated eliminates exclude excluded excludes
    reject rejected discard discarded rules weder ni ne pas non nicht kein
    keine não nem niet geen inte ikke nie değil bukan không 不 没 沒 非 排除 ない なく
    なし 아니 않 не нет ни नहीं न ليس ليست لا غير ไม่
""")
"""Words that deny what follows, or what they are said of."""

PREFIXED = ("不是", "并非", "而非", "不", "не", "ليس", "ليست", "ไม่", "không phải")
"""Negations that stand before what they deny, in languages that may also put them after it."""

WRONG = _words("""
    wrong incorrect false impossible unlikely implausible invalid inaccurate
    contradicts contradicted improbable inconsistent
    unsupported poor ruled eliminated excluded rejected incorrecta incorrecto falso
    falsa faux fausse incorrecte falsch inkorrekt errada errado incorreta
    incorreto fel feil forkert väärin väärä błędna błędne špatně greșit
    λάθος שגוי sbagliata sbagliato errata onjuist fout yanlış salah sai ❌ ✗ ✘ ×
    错 錯 誤 间违 間違 틀렸 틀린 오답 неверно неверен неверный неправильно неправильный गलत
    خطأ خاطئ خاطئة ผิด
""")
"""Adjectives that deny the option they are said of."""

VERDICTS = PREDICATE | NEGATION | WRONG
"""Words that say whether something holds."""

NOT_NEGATIONS = ("不过", "不過", "不错", "不錯", "不仅", "非常", "除非", "没错", "沒錯", "無し")
"""Words that contain a negation and deny nothing."""

AGAINST = _words("than instead over unlike versus vs unlike against statt als lugar plutôt")
"""Words whose object was not chosen: "B rather than A"."""

HEDGE = _words("""
    maybe perhaps might may could possibly possible plausible either
    alternatively thought initially seemed considered tempting quizás podría
    peut-être pourrait vielleicht könnte talvez poderia forse potrebbe
    misschien może belki mungkin 可能 也许 或许 也 かもしれ 아마 возможно может शायद ربما
""")
"""Words that mark a statement as uncertain; it counts only if there is no certain one."""

TURN = _words("""
    but however actually wait sorry correction rather oops instead meant edit
    update revised pero sino aber sondern mais plutôt mas porém però invece
    maar fakat tetapi nhưng 但 但是 不过 不過 然而
    而是 更正 等等 しかし いや 하지만 그러나 но а लेकिन
    बल्कि لكن بل แต่
""")
"""Words after which a statement replaces earlier ones: "the answer is A, but …"."""

REASON = _words("""
    because since as while whereas although though if when where which who
    given due considering porque ya pues aunque parce car puisque comme bien
    weil denn da obwohl pois perché poiché omdat want eftersom ponieważ çünkü
    karena vì 因为 因為 由于 なぜなら から ので 때문 왜냐 потому так क्योंकि لأن เพราะ
""")
"""Words that begin a subordinate clause, which explains and does not choose."""

JOIN = _words("""
    and or nor y o e u ou et oder und noch ni en of och eller i lub ve veya
    dan atau và hoặc 和 或 或者 与 跟 と か または 또는 나 와 과 и или या और و أو และ หรือ
""")
"""Words between two options that are named together."""

FINAL = _words("""
    final finale finala definitiva definitivo définitive endgültige endgültig
    ostateczna 最终 最終 最后 окончательный 최종 अंतिम النهائية
""")
"""Words that make a statement outrank earlier ones: "… my final answer is C"."""

NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty
""".split()  # noqa: SIM905
ORDINALS = """
    first second third fourth fifth sixth seventh eighth ninth tenth
""".split()  # noqa: SIM905
PHRASES = {
    "on second thoughts?": "actually",
    "(?:with)?out (?:a|any) doubt|no (?:doubt|question)": "surely",
    "not only": "",
    "(?:all|any|every)(?:thing|one)? (?:but|except)": "not",
    "(?:rule|rules|ruled|ruling) out": "exclude",
    "(?:is|are) (?:ruled )?out": "is wrong",
    "(?:looks?|seems) like": "seems",
    "(?:less|least) (?:likely|plausible|probable|convincing)": "unlikely",
    "most (?:likely|plausible|probable|convincing|reasonable)": "best",
    "(?:away|far) from": "not",
    "out of the question": "wrong",
    "(option|choice|answer)-(?=[a-z]\\b)": r"\1 ",
    "1st": "first",
    "2nd": "second",
    "3rd": "third",
}
"""What a phrase means that its words do not say."""
