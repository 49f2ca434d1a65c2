"""Words of the marketplace: product types with synonyms, brands, model series, attribute values and noise words.

`catalogue` and `queries` use them. Model names are derived by arithmetic and not drawn, so that every seed has the same
words.
"""

from typing import NamedTuple


class ProductType(NamedTuple):
    """A product type.

    Empty `series`: there are no model names; series `-`: a model name is a number only. `fits` names the main product
    of an accessory.
    """

    leaf: str  # "top > leaf"
    names: str  # synonyms, comma separated, the most frequent first
    brands: str = ""
    series: str = ""
    specs: str = ""
    price: float = 20.0  # median, in currency units
    fits: str = ""  # first name of the main product type, whose brands and models an accessory has


STORAGE = "32gb 64gb 128gb 256gb 512gb"
CLOTHES = "xs s m l xl xxl"
SHOES = "36 37 38 39 40 41 42 43 44 45"
WHEELS = "20inch 24inch 26inch 27inch 28inch 29inch"

# fmt: off
PRODUCT_TYPES: tuple[ProductType, ...] = (
    # electronics
    ProductType("electronics > phones", "phone,smartphone,mobile,cell phone", "nokia samsung apple xiaomi huawei oppo",
                "- galaxy iphone redmi mate reno", STORAGE, 180),
    ProductType("electronics > phone accessories", "battery,replacement battery,accumulator", price=12, fits="phone"),
    ProductType("electronics > phone accessories", "case,cover,bumper,shell", price=7, fits="phone"),
    ProductType("electronics > phone accessories", "charger,power adapter,charging cable", price=9, fits="phone"),
    ProductType("electronics > phone accessories", "screen protector,tempered glass,screen film", price=5,
                fits="phone"),
    ProductType("electronics > computers", "laptop,notebook,portable computer", "lenovo dell hp asus acer",
                "thinkpad latitude pavilion zenbook aspire ideapad", "8gb 16gb 24gb 32gb", 350),
    ProductType("electronics > computers", "desktop,tower pc,workstation", "lenovo dell hp", "thinkstation optiplex "
                "prodesk precision", "8gb 16gb 24gb 32gb", 280),
    ProductType("electronics > computers", "tablet,slate,pad", "apple samsung huawei lenovo", "ipad tab matepad yoga",
                STORAGE, 190),
    ProductType("electronics > computer accessories", "docking station,dock,port replicator", price=45, fits="laptop"),
    ProductType("electronics > computer accessories", "laptop sleeve,laptop bag,carry case", price=18, fits="laptop"),
    ProductType("electronics > computer accessories", "tablet keyboard,keyboard folio", price=35, fits="tablet"),
    ProductType("electronics > cameras", "camera,digital camera,photo camera", "canon nikon sony fujifilm",
                "powershot coolpix cybershot finepix eos", "12mp 16mp 20mp 24mp", 220),
    ProductType("electronics > cameras", "lens,objective,zoom lens", "canon nikon sigma tamron", "ef nikkor art sp",
                "35mm 50mm 85mm 200mm", 170),
    ProductType("electronics > cameras", "camera strap,neck strap", price=11, fits="camera"),
    ProductType("electronics > cameras", "memory card,sd card,flash card", "sandisk kingston lexar",
                specs="16gb 32gb 64gb 128gb", price=13),
    ProductType("electronics > audio", "headphones,headset,earphones", "sony bose sennheiser jbl philips",
                "wh quietcomfort momentum tune fidelio", "wired wireless", 70),
    ProductType("electronics > audio", "speaker,loudspeaker,boombox", "jbl bose sony marshall",
                "charge soundlink srs stanmore flip", "10w 20w 40w", 85),
    ProductType("electronics > audio", "ear pads,ear cushions", price=9, fits="headphones"),
    ProductType("electronics > gaming", "console,game console,games machine", "sony nintendo microsoft sega",
                "playstation switch xbox dreamcast wii", "250gb 500gb 1tb", 200),
    ProductType("electronics > gaming", "controller,gamepad,joypad", price=28, fits="console"),
    ProductType("electronics > gaming", "console stand,vertical stand", price=15, fits="console"),
    # fashion
    ProductType("fashion > shoes", "sneakers,trainers,running shoes,tennis shoes", "nike adidas puma reebok asics",
                "pegasus superstar suede classic gel airmax", SHOES, 45),
    ProductType("fashion > shoes", "boots,ankle boots,winter boots", "timberland clarks ecco geox", specs=SHOES,
                price=55),
    ProductType("fashion > shoes", "sandals,flip flops,slides", "birkenstock crocs ecco", specs=SHOES, price=25),
    ProductType("fashion > jackets", "jacket,coat,parka", "columbia patagonia zara mango", "delta torrent nano arctic",
                CLOTHES, 60),
    ProductType("fashion > jackets", "vest,gilet,body warmer", "columbia patagonia uniqlo", specs=CLOTHES, price=30),
    ProductType("fashion > dresses", "dress,gown,frock", "zara mango hm esprit", specs=CLOTHES, price=28),
    ProductType("fashion > dresses", "skirt,mini skirt", "zara mango hm", specs=CLOTHES, price=18),
    ProductType("fashion > trousers", "jeans,denim trousers,denims", "levis wrangler lee diesel", "501 texas rider "
                "larkee 511", "w28 w30 w32 w34 w36", 32),
    ProductType("fashion > trousers", "shorts,bermudas", "levis nike adidas", specs=CLOTHES, price=16),
    ProductType("fashion > bags", "handbag,purse,shoulder bag", "guess coach furla michaelkors", "luxury tabby "
                "metropolis jetset", "small medium large", 80),
    ProductType("fashion > bags", "backpack,rucksack,daypack", "eastpak deuter fjallraven osprey",
                "padded futura kanken talon", "15l 20l 30l 45l", 40),
    ProductType("fashion > watches", "watch,wristwatch,timepiece", "casio seiko citizen fossil swatch",
                "gshock presage promaster grant edifice", "36mm 40mm 44mm", 95),
    ProductType("fashion > watches", "watch band,watch strap,bracelet", price=14, fits="watch"),
    # home
    ProductType("home > furniture", "sofa,couch,settee", "ikea natuzzi muuto", "kivik ektorp outline",
                "2seater 3seater corner", 220),
    ProductType("home > furniture", "armchair,easy chair,lounge chair", "ikea vitra muuto", "poang strandmon grand",
                price=90),
    ProductType("home > furniture", "desk,writing table,work table", "ikea vitra hay", "malm micke loop",
                "100cm 120cm 140cm 160cm", 85),
    ProductType("home > furniture", "sofa cover,slipcover,couch cover", price=35, fits="sofa"),
    ProductType("home > kitchen", "coffee machine,espresso machine,coffee maker", "delonghi philips krups siemens",
                "magnifica lattego essential eq dedica", "1l 2l", 140),
    ProductType("home > kitchen", "water filter,filter cartridge", price=12, fits="coffee machine"),
    ProductType("home > kitchen", "blender,mixer,smoothie maker", "philips bosch kenwood braun",
                "avance vitapower blendx jetblend", "600w 800w 1000w", 42),
    ProductType("home > kitchen", "pan,frying pan,skillet", "tefal wmf fissler", specs="20cm 24cm 28cm", price=22),
    ProductType("home > appliances", "vacuum cleaner,hoover,vacuum", "dyson miele bosch rowenta",
                "v8 v11 complete athlet swift", "400w 700w 900w", 120),
    ProductType("home > appliances", "vacuum bag,dust bag", price=10, fits="vacuum cleaner"),
    ProductType("home > appliances", "washing machine,washer", "bosch siemens miele lg", "serie iq wsd vivace",
                "7kg 8kg 9kg", 210),
    ProductType("home > lighting", "lamp,table lamp,desk light", "ikea philips artemide", "tolomeo hue tertial",
                price=30),
    ProductType("home > lighting", "chandelier,pendant light,ceiling lamp", "ikea artemide flos", price=65),
    ProductType("home > tools", "drill,cordless drill,power drill", "bosch makita dewalt hilti", "gsr ddf dcd sf",
                "12v 18v 24v", 75),
    ProductType("home > tools", "saw,circular saw,jigsaw", "bosch makita dewalt", "gks dhs dcs", "12v 18v 24v", 80),
    ProductType("home > tools", "drill bits,bit set", price=13, fits="drill"),
    # sports
    ProductType("sports > bicycles", "bike,bicycle,cycle", "trek giant specialized cube scott",
                "marlin escape rockhopper aim scale domane", WHEELS, 320),
    ProductType("sports > bicycles", "scooter,kick scooter,push scooter", "oxelo razor micro", price=50),
    ProductType("sports > bicycle parts", "bike saddle,bicycle seat", price=22, fits="bike"),
    ProductType("sports > bicycle parts", "brake pads,brake shoes", price=11, fits="bike"),
    ProductType("sports > bicycle parts", "helmet,bike helmet,cycling helmet", "giro uvex abus", "syntax finale "
                "pedelec", "s m l", 38),
    ProductType("sports > fitness", "treadmill,running machine", "reebok kettler horizon", "jet alpha paragon",
                price=300),
    ProductType("sports > fitness", "dumbbell,hand weight,weights", "domyos kettler", specs="2kg 5kg 10kg 20kg",
                price=24),
    ProductType("sports > fitness", "yoga mat,exercise mat", "domyos manduka reebok", price=20),
    ProductType("sports > camping", "tent,camping tent,dome tent", "coleman vaude quechua msr",
                "darwin taurus arpenaz hubba", "2person 3person 4person", 95),
    ProductType("sports > camping", "sleeping bag,mummy bag", "vaude quechua deuter", "sioux forclaz orbit",
                price=50),
    ProductType("sports > camping", "groundsheet,tent footprint", price=18, fits="tent"),
    # toys
    ProductType("toys > building", "building set,construction kit,brick set", "lego playmobil cobi",
                "technic city creator duplo castle", "300pcs 500pcs 900pcs", 40),
    ProductType("toys > dolls", "doll,puppet", "barbie bratz corolle", "fashionista dream", price=18),
    ProductType("toys > dolls", "doll house,dolls house", "barbie playmobil", "malibu mansion", price=55),
    ProductType("toys > dolls", "doll clothes,doll outfit", price=9, fits="doll"),
    ProductType("toys > models", "model train,toy train,railway set", "marklin piko brio hornby",
                "startup hobby smart railroad", "h0 n0 tt", 75),
    ProductType("toys > models", "train tracks,rails", price=20, fits="model train"),
    ProductType("toys > models", "rc car,remote control car", "tamiya carrera traxxas", "hornet hunter slash",
                price=70),
    ProductType("toys > board games", "board game,family game,tabletop game", "ravensburger hasbro kosmos",
                "catan monopoly labyrinth risk", price=20),
    ProductType("toys > board games", "puzzle,jigsaw puzzle", "ravensburger clementoni schmidt",
                specs="500pcs 1000pcs 2000pcs", price=12),
    # vehicles
    ProductType("vehicles > car parts", "car radio,car stereo,head unit", "pioneer kenwood alpine",
                "deh kdc ute", "1din 2din", 85),
    ProductType("vehicles > car parts", "tyres,tires,car tyres", "michelin continental pirelli goodyear",
                "pilot contact cinturato eagle", "15zoll 16zoll 17zoll 18zoll", 130),
    ProductType("vehicles > car parts", "wheel rims,alloy wheels", "borbet oz bbs", "racing design",
                "15zoll 16zoll 17zoll 18zoll", 190),
    ProductType("vehicles > car parts", "radio bezel,radio frame", price=15, fits="car radio"),
    ProductType("vehicles > motorcycles", "motorcycle,motorbike", "honda yamaha kawasaki suzuki",
                "hornet tracer ninja bandit shadow", "125cc 250cc 600cc", 2400),
    ProductType("vehicles > motorcycles", "moped,motor scooter", "vespa piaggio honda", "primavera liberty vision",
                "50cc 125cc", 900),
    ProductType("vehicles > motorcycle gear", "motorcycle exhaust,silencer,muffler", price=120, fits="motorcycle"),
    ProductType("vehicles > motorcycle gear", "motorcycle gloves,riding gloves", "alpinestars held dainese",
                specs="s m l xl", price=45),
    ProductType("vehicles > navigation", "navigation system,sat nav,gps", "garmin tomtom", "drive nuvi rider",
                "5inch 6inch 7inch", 80),
    ProductType("vehicles > navigation", "sat nav mount,gps holder", price=12, fits="navigation system"),
)
# fmt: on

MODELS_PER_SERIES = 3
_NUMBERS = (
    "3310 105 520 s8 s9 s10 11 12 13 x1 x2 t480 t490 5400 7490 15 14 300 400 500 600 1100 90 70d 80d a7 a9 1000 700 35 "
    "2 3 4 5 6 7 8 9 40 41 38 x5 x7 e300 e500 pro max mini lite plus 2200 3200 4300 360 one 100 110 120 150 180 220 "
    "240 260 280 320 350 380 420 450 480 550 580 620 650 680 720 750 780 820 850 880 920 950 980 1200 1400 1600 "
    "1800 2000 2400 2600 3000 3600 4000 k1 k2 k3 k5 r1 r3 r5 r7 g1 g2 g3 g5 m1 m2 m3 z1 z2 z3 z5 c1 c2 c3 c5"
)
NUMBERS = _NUMBERS.split()

COLOURS = (  # each colour with its synonym
    ("black", "jet black"),
    ("white", "snow white"),
    ("blue", "navy"),
    ("red", "crimson"),
    ("green", "olive"),
    ("grey", "anthracite"),
    ("silver", "chrome"),
    ("gold", "golden"),
    ("pink", "rose"),
    ("brown", "tan"),
    ("yellow", "mustard"),
    ("purple", "violet"),
)

FOR_PARTS = 3
CONDITIONS = (  # rows: 0 new, 1 like new, 2 used, 3 broken; the wordings in a row are synonyms
    ("new", "brand new", "sealed", "unopened"),
    ("like new", "mint", "barely used", "as new"),
    ("used", "second hand", "good condition", "pre owned"),
    ("for parts", "broken", "defective", "not working"),
)

_NOISE = (
    "cheap,bargain,original,genuine,urgent sale,must go,top,great,nice,vintage,retro,rare,collectors,with box,"
    "with invoice,with warranty,boxed,complete,full set,bundle,free shipping,pick up only,smoke free home,pet free,"
    "no swap,fixed price,negotiable,price drop,last chance,moving out,gift,unwanted gift,tested,works perfectly,"
    "cleaned,serviced,one owner,from collection,limited edition,special offer,see photos,read description,"
    "fast delivery,christmas,birthday,kids,men,women,unisex,student,family,travel,office,garden,summer,winter,spring,"
    "autumn,berlin,paris,london,madrid,rome,vienna,prague,lisbon,oslo,dublin,milan,lyon,porto,graz,bern,gent,turin,"
    "modern,elegant,sturdy,light,heavy duty,compact,portable,comfortable,stylish,classy,quality,premium,basic,simple,"
    "old,2012,2014,2015,2016,2017,2018,2019,2020,2021,2022,2023,lovely,super,wow,look,hurry,bargain hunter,"
    "good price,best price,nearly,little scratches,small dent,well kept,hardly worn,never worn,ready to use,plug,"
    "imported,european,german,italian,japanese,french,hand made,eco,leather,cotton,wood,steel,plastic,glass,aluminium"
)
NOISE = _NOISE.split(",")
