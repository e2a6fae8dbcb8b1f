"""The hundred classes of CIFAR-100 with WordNet ids: a class list of small pictures of everything."""

PAIRS = """
apple=n07739125 aquarium_fish=n02512752 baby=n09827683 bear=n02131653 beaver=n02363005
bed=n02818832 bee=n02206856 beetle=n02164464 bicycle=n02834778 bottle=n02876657 bowl=n02881193
boy=n10285313 bridge=n02898711 bus=n02924116 butterfly=n02274259 camel=n02437136 can=n02946921
castle=n02980441 caterpillar=n02309337 cattle=n02402425 chair=n03001627 chimpanzee=n02481823
clock=n03046257 cloud=n09247410 cockroach=n02233338 couch=n04256520 crab=n01976957
crocodile=n01697178 cup=n03147509 dinosaur=n01699831 dolphin=n02068974 elephant=n02503517
flatfish=n02657368 forest=n08438533 fox=n02118333 girl=n10129825 hamster=n02342885
house=n03544360 kangaroo=n01877134 keyboard=n03085013 lamp=n03636248 lawn_mower=n03649909
leopard=n02128385 lion=n02129165 lizard=n01674464 lobster=n01982650 man=n10287213
maple_tree=n12752205 motorcycle=n03790512 mountain=n09359803 mouse=n02330245 mushroom=n07734744
oak_tree=n12268246 orange=n07747607 orchid=n12041446 otter=n02444819 palm_tree=n12582231
pear=n07767847 pickup_truck=n03930630 pine_tree=n11608250 plain=n09393605 plate=n03959485
poppy=n11900569 porcupine=n02346627 possum=n01874928 rabbit=n02324045 raccoon=n02508021
ray=n01495701 road=n04096066 rocket=n04099429 rose=n12620196 sea=n09426788 seal=n02076196
shark=n01482330 shrew=n01891633 skunk=n02445715 skyscraper=n04233124 snail=n01944390
snake=n01726692 spider=n01772222 squirrel=n02355227 streetcar=n04335435 sunflower=n11978233
sweet_pepper=n07720615 table=n04379243 tank=n04389033 telephone=n04401088 television=n04405907
tiger=n02129604 tractor=n04465501 train=n04468005 trout=n02537085 tulip=n12454159
turtle=n01662784 wardrobe=n04550184 whale=n02062744 willow_tree=n12724942 wolf=n02114100
woman=n10787470 worm=n01922303
"""

NAMES, WNIDS = zip(*(pair.split("=") for pair in PAIRS.split()), strict=True)
