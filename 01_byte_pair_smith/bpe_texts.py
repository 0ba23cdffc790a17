"""Texts of this course's own, to be cut into tokens.

PARAGRAPHS: one paragraph in eight languages and in code. SENTENCES: English and Hindi, sentence for sentence the same.
WATER: one sentence in ten ways of writing. DIALOGUE: English as it is spoken.
"""

import unicodedata

PARAGRAPHS = {
    "English": (
        "The smith heats the iron until it glows. Then he lays it on the anvil and strikes it with the "
        "hammer, again and again. What was a bar becomes a nail, and of many nails a gate is made. Whoever "
        "sees only the gate does not know how often the hammer fell. That is why we begin with the iron."
    ),
    "code": (
        "def forge(iron, smith):\n"
        "    while not iron.glows:\n"
        "        smith.heat(iron)\n"
        "    for blow in range(smith.patience):\n"
        "        smith.hammer.strike(iron, on=smith.anvil)\n"
        "    nails = [Nail(bar) for bar in iron.bars]\n"
        "    return Gate(nails) if len(nails) > 12 else None  # nobody counts the blows\n"
    ),
    "German": (
        "Der Schmied erhitzt das Eisen, bis es glüht. Dann legt er es auf den Amboss und schlägt mit dem "
        "Hammer darauf, immer wieder. Was ein Stab war, wird ein Nagel, und aus vielen Nägeln entsteht ein "
        "Tor. Wer nur das Tor sieht, weiß nicht, wie oft der Hammer gefallen ist. Darum beginnen wir mit dem "
        "Eisen."
    ),
    "French": (
        "Le forgeron chauffe le fer jusqu'à ce qu'il rougeoie. Puis il le pose sur l'enclume et le frappe "
        "avec le marteau, encore et encore. Ce qui était une barre devient un clou, et de nombreux clous "
        "naît une grille. Celui qui ne voit que la grille ne sait pas combien de fois le marteau est tombé. "
        "C'est pourquoi nous commençons par le fer."
    ),
    "Spanish": (
        "El herrero calienta el hierro hasta que brilla. Luego lo pone sobre el yunque y lo golpea con el "
        "martillo, una y otra vez. Lo que era una barra se convierte en un clavo, y de muchos clavos se hace "
        "una puerta. Quien solo ve la puerta no sabe cuántas veces cayó el martillo. Por eso empezamos con "
        "el hierro."
    ),
    "Russian": (
        "Кузнец нагревает железо, пока оно не засветится. Потом он кладёт его на наковальню и бьёт молотом, "
        "снова и снова. Что было прутом, становится гвоздём, а из многих гвоздей получаются ворота. Кто "
        "видит только ворота, не знает, сколько раз падал молот. Поэтому мы начинаем с железа."
    ),
    "Arabic": (
        "يسخن الحداد الحديد حتى يتوهج. ثم يضعه على السندان ويضربه بالمطرقة مرة بعد مرة. ما كان قضيبا يصير "
        "مسمارا، ومن مسامير كثيرة تصنع بوابة. من يرى البوابة وحدها لا يعرف كم مرة سقطت المطرقة. لذلك نبدأ "
        "بالحديد."
    ),
    "Hindi": (
        "लोहार लोहे को तब तक गरम करता है जब तक वह चमकने न लगे। फिर वह उसे निहाई पर रखता "
        "है और हथौड़े से बार-बार मारता है। जो छड़ थी वह कील बन जाती है, और बहुत सी कीलों "
        "से एक फाटक बनता है। जो केवल फाटक देखता है, वह नहीं जानता कि हथौड़ा कितनी बार "
        "गिरा। इसलिए हम लोहे से शुरू करते हैं।"
    ),
    "Chinese": (
        "铁匠把铁烧得通红，然后把它放在铁砧上，用锤子一下又一下地敲打。原来的铁条变成了钉子，许多钉"
        "子又做成了一扇门。只看见门的人，不知道锤子落下了多少次。所以我们从铁开始。"
    ),
}

SENTENCES = [  # English, Hindi
    ("The old woman opens the door and looks at the rain.", "बूढ़ी औरत दरवाज़ा खोलती है और बारिश को देखती है।"),
    ("My brother bought a new bicycle yesterday.", "मेरे भाई ने कल एक नई साइकिल खरीदी।"),
    ("There is no milk in the house, so we drink tea without it.", "घर में दूध नहीं है, इसलिए हम बिना दूध की चाय पीते हैं।"),
    ("The train to the city leaves at seven in the morning.", "शहर जाने वाली रेलगाड़ी सुबह सात बजे निकलती है।"),
    ("Children are playing near the river.", "बच्चे नदी के पास खेल रहे हैं।"),
    ("She wrote a long letter to her friend.", "उसने अपनी सहेली को एक लंबी चिट्ठी लिखी।"),
    ("The farmer waits for the clouds.", "किसान बादलों की राह देख रहा है।"),
    ("This book is heavy, but the story is good.", "यह किताब भारी है, पर कहानी अच्छी है।"),
    ("We will eat when father comes home.", "जब पिताजी घर आएँगे तब हम खाना खाएँगे।"),
    ("The market is closed on Tuesday.", "मंगलवार को बाज़ार बंद रहता है।"),
    ("A small bird built its nest on our window.", "एक छोटी चिड़िया ने हमारी खिड़की पर घोंसला बनाया।"),
    ("The teacher asked a question and nobody answered.", "शिक्षक ने एक सवाल पूछा और किसी ने जवाब नहीं दिया।"),
    ("Bring two glasses of water, please.", "कृपया दो गिलास पानी ले आइए।"),
    ("The road to the village is broken.", "गाँव जाने वाली सड़क टूटी हुई है।"),
    ("In winter the nights are long and cold.", "सर्दियों में रातें लंबी और ठंडी होती हैं।"),
    ("He sells vegetables at the corner of the street.", "वह गली के मोड़ पर सब्ज़ियाँ बेचता है।"),
    ("The doctor says that you should rest.", "डॉक्टर कहते हैं कि तुम्हें आराम करना चाहिए।"),
    ("I forgot the key at the office.", "मैं चाबी दफ़्तर में भूल गया।"),
    ("The girl sings and her grandfather plays the drum.", "लड़की गाती है और उसके दादाजी ढोल बजाते हैं।"),
    ("How many days are left until the festival?", "त्योहार में कितने दिन बचे हैं?"),
    ("The dog sleeps under the table all day.", "कुत्ता दिन भर मेज़ के नीचे सोता है।"),
    ("Put the rice on the fire and cut the onions.", "चावल आग पर चढ़ाओ और प्याज़ काटो।"),
    ("The potter makes a bowl from wet clay.", "कुम्हार गीली मिट्टी से कटोरा बनाता है।"),
    ("Nobody knows where the road ends.", "कोई नहीं जानता कि सड़क कहाँ खत्म होती है।"),
    ("Her shop is older than the school.", "उसकी दुकान स्कूल से भी पुरानी है।"),
    ("The moon rose behind the mountain.", "पहाड़ के पीछे से चाँद निकला।"),
    ("Give this money to your mother.", "ये पैसे अपनी माँ को दे दो।"),
    ("The boat crosses the river twice a day.", "नाव दिन में दो बार नदी पार करती है।"),
    ("We have to repair the roof before the rains.", "बरसात से पहले हमें छत की मरम्मत करनी है।"),
    ("He speaks slowly so that everybody understands.", "वह धीरे बोलता है ताकि सब समझ सकें।"),
    ("The king of the story had three daughters.", "कहानी के राजा की तीन बेटियाँ थीं।"),
    ("Do not walk alone in the dark forest.", "अँधेरे जंगल में अकेले मत चलो।"),
    ("The tailor needs a week for the shirt.", "दर्ज़ी को कमीज़ के लिए एक हफ़्ता चाहिए।"),
    ("The mangoes on this tree are still green.", "इस पेड़ के आम अभी हरे हैं।"),
    ("Yesterday the whole city was without light.", "कल पूरे शहर में बिजली नहीं थी।"),
    ("My neighbour grows flowers and gives them away.", "मेरा पड़ोसी फूल उगाता है और बाँट देता है।"),
    ("It is easier to break a pot than to make one.", "घड़ा बनाने से उसे तोड़ना आसान है।"),
    ("The guests came late and stayed until midnight.", "मेहमान देर से आए और आधी रात तक रुके।"),
    ("Write your name on the first page.", "पहले पन्ने पर अपना नाम लिखो।"),
    ("The well is deep and the water is sweet.", "कुआँ गहरा है और पानी मीठा है।"),
]

WATER = {  # one sentence in scripts whose letters carry marks, and in some without
    "English": "Water runs down from the mountain to the sea.",
    "French, letters with separate accents (NFD)": unicodedata.normalize(
        "NFD", "L'eau descend de la montagne jusqu'à la mer, été après été."
    ),
    "Vietnamese (NFD)": unicodedata.normalize("NFD", "Nước chảy từ trên núi xuống biển."),
    "Arabic with vowel signs": "يَجْرِي الْمَاءُ مِنَ الْجَبَلِ إِلَى الْبَحْرِ.",
    "Hebrew with points": "הַמַּיִם זוֹרְמִים מִן הָהָר אֶל הַיָּם.",
    "Hindi": "पानी पहाड़ से समुद्र की ओर बहता है।",
    "Bengali": "জল পাহাড় থেকে সমুদ্রের দিকে বয়ে যায়।",
    "Tamil": "தண்ணீர் மலையிலிருந்து கடலுக்கு ஓடுகிறது.",
    "Telugu": "నీరు కొండ నుండి సముద్రానికి ప్రవహిస్తుంది.",
    "Russian": "Вода бежит с горы к морю.",
}

DIALOGUE = """\
"I can't find the hammer, and it's not where you'd put it." "You've looked, haven't you? It's behind the door."
"It isn't. I'd have seen it." "Then she's taken it. They're building a shed, and they'll need it till they've done."
"She's got her own, hasn't she?" "She'd lend you hers if you'd ask. She doesn't mind." "I don't like asking."
"You're strange. We've known her for years, and we'd lend her ours." "That's true. I'll go when it's stopped raining."
"It won't stop. They've said it'll rain until we're asleep." "I'm not made of sugar. I'll take the coat that's dry."
"There's only mine, and it's too small; you'd tear it." "Then I shan't go, and the shelf won't hang." "It's hung since
Monday. Didn't you see?" "Who's done that?" "I've done it. You weren't there." "With what? You hadn't a hammer!"
"We've got two. I couldn't find the one you'd lost, so I've bought another." "And where's that one?" "It's with her.
She couldn't find hers." "So that's why it isn't behind the door." "No, that one's yours, and it's where it's always
been." "I've looked there." "You've looked behind a door. There're three." "I hadn't thought of that." "You're
welcome." "What'd I do without you?" "You'd buy hammers."
"""
